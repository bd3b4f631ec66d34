//! Names that would drive a terminal or fake a line, wherever the program prints them: nothing but text, tabs and our
//! own line breaks comes out.

use aimss_mount_tests::mount::place;
use aimss_mount_tests::tree::path;
use aimss_mount_tests::{Mount, binary, both_modes, skip};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};

/// A line of its own, a cleared screen, a title, the eight-bit form of the escape, and bytes that are no text.
const HOSTILE: &[u8] = b"a\naimss: fake\r\x1b[2J\x1b]0;title\x07\xc2\x9b31m\xff\x7f";

/// What a command printed, with no control character but line breaks.
fn printed(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8(all).expect("what is printed is text");
    let bad: Vec<char> = text.chars().filter(|c| c.is_control() && *c != '\n').collect();
    assert!(bad.is_empty(), "{bad:?} in {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("aimss: fake")), "{text}");
    text
}

both_modes! {
    /// A stream that lags is named in status, a file that can't be drained in its last error and in the log.
    with { drain_delay: "1h" }
    fn status_names_them_escaped(mount: &Mount) {
        let stream = path(&[HOSTILE, b".stream"].concat()).to_owned();
        OpenOptions::new().create(true).append(true).open(mount.at(&stream))?.write_all(b"1\n2\n")?;
        let group = OsStr::from_bytes(&[stream.as_os_str().as_bytes(), b"@g"].concat()).to_owned();
        drop(File::open(mount.at(group))?);
        let long = vec![b'\x1b'; 255];
        fs::write(mount.at(path(&long)), "x")?;
        let text = printed(&mount.aimss(&["status"]));
        // Broken where it has a space.
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("a\\naimss: fake\\x0d\\x1b[2J"), "{text}");
        // Bytes that are no text are no reason for none.
        let output = mount.aimss(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let named = &status["mounts"][0]["streams"]["groups"]["worst"]["stream"];
        assert!(named.as_str().is_some_and(|name| name.starts_with("a\naimss: fake\r\u{1b}")), "{named}");
        let list = Command::new(binary::path()).args(["stream", "ls"]).arg(mount.point()).output()?;
        assert!(printed(&list).contains("fake"), "{list:?}");
        fs::remove_file(mount.at(&stream))?;
    }

    /// The drain fails on a name that somebody put something in the way of; it is shown, and logged.
    with { drain_delay: "1h" }
    fn errors_and_the_log_name_them_escaped(mount: &Mount) {
        let dir = path(HOSTILE);
        fs::create_dir(mount.at(dir))?;
        mount.drain()?;
        fs::write(mount.at(dir).join("file"), "x")?;
        fs::rename(mount.behind(dir), mount.behind("away"))?;
        fs::write(mount.behind(dir), "in the way")?;
        let output = mount.aimss(&["drain"]);
        assert!(!output.status.success());
        assert!(printed(&output).contains("fake"), "{output:?}");
        let status = mount.aimss(&["status"]);
        assert!(printed(&status).contains("last error"), "{status:?}");
        let mut warm = binary::aimss();
        printed(&warm.arg("warm").arg(mount.at(dir).join("none")).output()?);
        fs::remove_file(mount.behind(dir))?;
        fs::rename(mount.behind("away"), mount.behind(dir))?;
        mount.drain()?;
        let log = fs::read(mount.beside("log"))?;
        assert!(!log.contains(&0x1b), "{}", String::from_utf8_lossy(&log));
        for line in String::from_utf8(log)?.lines() {
            assert!(line.starts_with("    ") || line.starts_with(|c: char| c.is_ascii_digit()), "{line:?}");
        }
    }

    /// A program, and a file that it holds, each with such a name: `umount` says who it is, on one line. It waits for
    /// nobody to whom such a name can't be told.
    fn holders_are_named_escaped(mount: &Mount) {
        // What the kernel keeps of a program's name is 15 bytes.
        let program = mount.beside("programs").join(OsStr::from_bytes(b"\n\x1b[31mred\xff"));
        fs::create_dir(mount.beside("programs"))?;
        fs::copy("/bin/sleep", &program)?;
        fs::write(mount.at(path(HOSTILE)), "x")?;
        let held = File::open(mount.at(path(HOSTILE)))?;
        let mut sleeper = Command::new(&program).arg("60").stdin(Stdio::from(held)).spawn()?;
        let output = mount.aimss(&["umount"]);
        sleeper.kill()?;
        sleeper.wait()?;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = printed(&output);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("\\n\\x1b[31mred") && said.contains("\\x1b[2J"), "{said}");
        assert!(said.contains(&format!("({})", sleeper.id())), "{said}");
    }

    /// What waits is told by name, whatever it is: `--export` takes it along.
    with { drain_delay: "1h" }
    fn what_waits_is_exported_whatever_its_name(mount: &Mount) {
        for dir in ["dir", "other"] {
            fs::create_dir(mount.at(dir))?;
        }
        mount.drain()?;
        let name = path(b"dir/\xff\xfe\n");
        fs::write(mount.at(name), "kept")?;
        let mut drain = binary::aimss();
        let some = drain.arg("drain").arg(mount.at(name)).stdin(Stdio::null()).output()?;
        assert!(some.status.success(), "{some:?}");
        assert_eq!(fs::read(mount.behind(name))?, b"kept");
        let name = path(b"other/\xff\xfe\n");
        fs::write(mount.at(name), "changed")?;
        fs::rename(mount.behind("other"), mount.behind("away"))?;
        fs::write(mount.behind("other"), "in the way")?;
        fs::create_dir(mount.beside("export"))?;
        let export = mount.beside("export");
        let output = mount.aimss(&["umount", "--export", export.to_str().expect("text")]);
        assert!(output.status.success(), "{output:?}");
        printed(&output);
        assert_eq!(fs::read(export.join(name))?, b"changed");
        fs::remove_file(mount.behind("other"))?;
        fs::rename(mount.behind("away"), mount.behind("other"))?;
        mount.mount_again()?;
    }
}

/// A lease says who has the backing: whoever wrote it.
#[test]
fn a_leases_owner_is_named_escaped() -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if !rustix::process::geteuid().is_root() {
        skip("mounting needs root");
        return Ok(());
    }
    let place = place()?;
    let private = place.path().join("backing/.aimss");
    fs::DirBuilder::new().mode(0o700).create(&private)?;
    let fake = "n\n\u{1b}[2J\u{9b}aimss: fake";
    let owner = serde_json::json!({"node": fake, "pid": 1, "mountpoint": format!("/m{fake}")});
    fs::write(private.join("lease"), owner.to_string())?;
    let mut mount = binary::aimss();
    let output =
        mount.arg("mount").arg(place.path().join("backing")).arg(place.path().join("mnt")).output()?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = printed(&output);
    assert!(said.lines().count() == 1 && said.contains("\\x1b[2J"), "{said}");
    Ok(())
}
