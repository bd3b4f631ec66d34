//! Real programs and public test suites on the mount, by the scripts of `programs/`, in small sizes.
//!
//! `programs/run_all.sh` runs the same ones and more on any directory, at full size. What a script needs and
//! doesn't find is installed by `programs/install.sh core`.

use aimss_mount_tests::{Mount, both_modes, program};

both_modes! {
    fn pjdfstest(mount: &Mount) {
        program::run(mount, "pjdfstest.sh", &[])?;
    }

    /// Mappings are kept by fsx after each close.
    fn fsx_with_kept_mappings(mount: &Mount) {
        program::run(mount, "fsx.sh", &["20000", "1"])?;
    }

    /// The same on a file whose size is known ahead, so that it is in memory from the start.
    fn fsx_with_kept_mappings_in_memory(mount: &Mount) {
        program::run(mount, "fsx.sh", &["20000", "3", "sibling=true"])?;
    }

    /// Nothing is mapped for reading, so that the file becomes quiet at every close.
    fn fsx_with_quiet_files(mount: &Mount) {
        program::run(mount, "fsx.sh", &["20000", "2", "weights.mapread=0", "weights.close_open=20"])?;
    }

    fn fio_verifies_what_it_wrote(mount: &Mount) {
        program::run(mount, "fio_verify.sh", &[])?;
    }

    fn sqlite_with_concurrent_writers(mount: &Mount) {
        program::run(mount, "sqlite_wal.py", &["1"])?;
    }

    fn cp_tar_rsync_and_diff_of_a_tree(mount: &Mount) {
        program::run(mount, "tree.sh", &["1000"])?;
    }

    fn git_make_and_cargo(mount: &Mount) {
        program::run(mount, "git_tree.sh", &["60"])?;
    }

    fn a_directory_that_changes_while_it_is_read(mount: &Mount) {
        program::run(mount, "dir_churn.py", &["20000"])?;
    }

    fn appends_by_eight_processes(mount: &Mount) {
        program::run(mount, "concurrent_append.py", &[])?;
    }

    fn stream_files_and_groups(mount: &Mount) {
        program::run(mount, "stream_groups.py", &[])?;
    }

    fn loggers_followers_and_shippers_of_streams(mount: &Mount) {
        program::run(mount, "stream_programs.sh", &[])?;
    }

    fn members_of_groups_are_killed(mount: &Mount) {
        program::run(mount, "stream_soak.py", &["--seconds", "15"])?;
    }
}
