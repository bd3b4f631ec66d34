//! What the command line refuses on a live mount, and whom it names.

use aimss_mount_tests::{Mount, both_modes, mount};
use std::fs::{self, File};
use std::process::{Command, Output, Stdio};

fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

both_modes! {
    fn a_second_mount_of_the_backing_is_refused_with_the_first_ones_name(mount: &Mount) {
        let place = mount::place()?;
        let other = place.path().join("mnt");
        let mut command = aimss_mount_tests::binary::aimss();
        let said = refusal(&command.arg("mount").arg(mount.backing()).arg(&other).output()?);
        assert!(said.contains(&*mount.point().to_string_lossy()), "{said}");
        fs::write(mount.at("file"), "the first one works on")?;
    }

    fn umount_names_the_program_and_the_file_that_hold_it(mount: &Mount) {
        fs::write(mount.at("held"), "x")?;
        let file = File::open(mount.at("held"))?;
        let mut sleeper = Command::new("sleep").arg("60").stdin(Stdio::from(file)).spawn()?;
        // The command line names five at most; this test itself holds nothing.
        let said = refusal(&mount.aimss(&["umount"]));
        sleeper.kill()?;
        sleeper.wait()?;
        assert!(said.contains("sleep") && said.contains(&sleeper.id().to_string()), "{said}");
        assert!(said.contains("held"), "{said}");
        assert_eq!(fs::read(mount.at("held"))?, b"x");
    }

    fn umount_refuses_while_somebody_stands_inside(mount: &Mount) {
        fs::create_dir(mount.at("dir"))?;
        let mut sleeper = Command::new("sleep").arg("60").current_dir(mount.at("dir")).spawn()?;
        let said = refusal(&mount.aimss(&["umount"]));
        sleeper.kill()?;
        sleeper.wait()?;
        assert!(said.contains("sleep"), "{said}");
    }
}
