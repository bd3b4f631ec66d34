//! The program that daemons are started of, held by a descriptor: removing or replacing its file changes nothing for a mount
//! that it serves, as it changes nothing for a process that runs.
//!
//! It is started by the descriptor's path in `/proc`, which names the file itself. The file's own path is for messages.
//! A script's interpreter opens that path once more, so a script's daemon inherits a copy of the descriptor.

use rustix::fs::{Mode, OFlags};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// See the module.
pub(super) struct Program {
    path: PathBuf,
    file: OwnedFd,
    is_script: bool,
}

impl Program {
    /// The one that this process runs.
    pub(super) fn own() -> io::Result<Program> {
        let path = std::env::current_exe().unwrap_or_else(|_| "aimss".into());
        Program::hold(Path::new("/proc/self/exe"), path)
    }

    /// The one that `path` names now.
    pub(super) fn open(path: &Path) -> io::Result<Program> {
        Program::hold(path, path.to_owned())
    }

    fn hold(at: &Path, path: PathBuf) -> io::Result<Program> {
        // Needs no right to read it: a program may be one that can be executed only.
        let file = rustix::fs::open(at, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let held = in_proc(&file);
        // To open a pipe would wait for its other end.
        if !fs::metadata(&held)?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut begin = [0; 2];
        let read = File::open(&held).and_then(|mut file| file.read_exact(&mut begin));
        Ok(Program { path, file, is_script: read.is_ok() && begin == *b"#!" })
    }

    /// Calls `start` with a path that a child can execute.
    pub(super) fn start<T>(&self, start: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        // Closed here as soon as the child has it.
        let inherited = self.is_script.then(|| rustix::io::dup(&self.file)).transpose()?;
        start(&in_proc(inherited.as_ref().unwrap_or(&self.file)))
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

/// A path to what `file` is, in this process and in its children.
fn in_proc(file: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::time::Duration;

    fn exit_code(program: &Program, arguments: &[&str]) -> Option<i32> {
        loop {
            match program.start(|path| Command::new(path).arg0("sh").args(arguments).status()) {
                // A child of another test has it open for writing until it is a program itself.
                Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                ended => return ended.expect("it can be started").code(),
            }
        }
    }

    #[test]
    fn a_program_is_started_after_its_path_became_another() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("program");
        symlink("/bin/sh", &path).expect("a link");
        let program = Program::open(&path).expect("it is there");
        fs::remove_file(&path).expect("the link goes");
        assert_eq!(exit_code(&program, &["-c", "exit 7"]), Some(7));
        symlink("/bin/false", &path).expect("another link");
        assert_eq!(exit_code(&program, &["-c", "exit 7"]), Some(7));
    }

    #[test]
    fn a_script_is_started_after_it_was_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("script");
        fs::write(&path, "#!/bin/sh\nexit $1\n").expect("a script");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it can be executed");
        let program = Program::open(&path).expect("it is there");
        fs::remove_file(&path).expect("the script goes");
        assert_eq!(exit_code(&program, &["7"]), Some(7));
    }

    #[test]
    fn this_process_has_a_program_and_a_directory_is_none() {
        let own = Program::own().expect("this test runs");
        assert_eq!(own.to_string(), std::env::current_exe().expect("it has a path").display().to_string());
        assert!(Program::open(Path::new("/")).is_err());
        assert!(Program::open(Path::new("/nowhere/aimss")).is_err());
    }
}
