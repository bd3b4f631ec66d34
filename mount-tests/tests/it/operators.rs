//! Operators: what `aimss op` makes, what it refuses, and that they go on after a death and after a remount.

use aimss_mount_tests::{Mount, binary, both_modes, mount::well, wait_until};
use anyhow::Result;
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn op(arguments: &[&str], paths: &[&Path]) -> Output {
    binary::aimss().arg("op").args(arguments).args(paths).output().expect("the binary can be run")
}

fn append(path: &Path, text: &str) -> Result<()> {
    Ok(OpenOptions::new().append(true).create(true).open(path)?.write_all(text.as_bytes())?)
}

fn waits_for(path: &Path, expected: &str) {
    let is_there = || fs::read_to_string(path).is_ok_and(|text| text == expected);
    wait_until(
        &format!("{} has {expected:?}, not {:?}", path.display(), fs::read_to_string(path)),
        SOON,
        is_there,
    );
}

fn listed(mount: &Mount) -> Result<Vec<Value>> {
    let said = op(&["ls", "--json"], &[&mount.point()]);
    let all: Value = serde_json::from_slice(&said.stdout)?;
    Ok(all["operators"].as_array().cloned().unwrap_or_default())
}

/// Names of streams show markers on the backing, so that the trees differ.
fn remove(mount: &Mount, names: &[&str]) -> Result<()> {
    for name in names {
        let said = binary::aimss().args(["stream", "rm"]).arg(mount.at(name)).output()?;
        well(&said)?;
    }
    Ok(())
}

fn refused(said: &Output, sentence: &str) {
    let stderr = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success() && stderr.contains(sentence), "{stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
}

both_modes! {
    fn records_go_where_they_belong_and_on_after_a_death_and_a_remount(mount: &Mount) {
        let (orders, by_user, dear) = (mount.at("orders.stream"), mount.at("by-user"), mount.at("dear"));
        append(&orders, "{\"user\":\"a\",\"price\":1}\n")?;
        well(&op(&["create", "shuffle", "--by", "json:user", "--range", "m", "--into"], &[&by_user, &orders]))?;
        well(&op(&["create", "filter", "--where", "value.price > 4", "--into"], &[&dear, &by_user]))?;
        append(&orders, "{\"user\":\"z\",\"price\":5}\n{\"user\":\"b\",\"price\":9}\n")?;
        waits_for(&by_user.join("0"), "{\"user\":\"a\",\"price\":1}\n{\"user\":\"b\",\"price\":9}\n");
        waits_for(&by_user.join("1"), "{\"user\":\"z\",\"price\":5}\n");
        wait_until("both dear ones are there", SOON, || fs::metadata(&dear).is_ok_and(|found| found.len() == 46));
        mount.kill_daemon()?;
        append(&orders, "{\"user\":\"c\",\"price\":2}\n")?;
        waits_for(
            &by_user.join("0"),
            "{\"user\":\"a\",\"price\":1}\n{\"user\":\"b\",\"price\":9}\n{\"user\":\"c\",\"price\":2}\n",
        );
        mount.umount()?;
        mount.mount_again()?;
        append(&orders, "{\"user\":\"y\",\"price\":3}\n")?;
        waits_for(&by_user.join("1"), "{\"user\":\"z\",\"price\":5}\n{\"user\":\"y\",\"price\":3}\n");
        wait_until("all are taken", SOON, || {
            listed(mount).is_ok_and(|all| all.iter().all(|one| one["taken"] == 5 && one["lag"] == 0))
        });
        assert_eq!(fs::metadata(&dear)?.len(), 46, "nothing came twice");
        for name in ["by-user", "dear"] {
            well(&op(&["rm", name, "--on"], &[&mount.point()]))?;
        }
        assert!(listed(mount)?.is_empty());
        // It is a stream like any other now.
        append(&dear, "x\n")?;
        remove(mount, &["orders.stream", "by-user", "dear"])?;
    }

    fn an_operator_may_be_told_by_a_file(mount: &Mount) {
        append(&mount.at("a.stream"), "1,x\n2,\"y,z\"\n")?;
        append(&mount.at("b.stream"), "3,x\n")?;
        let file = mount.beside("all.toml");
        fs::write(&file, "function = \"merge\"\ninputs = [\"a.stream\", \"b.stream\"]\noutput = \"all\"\n")?;
        well(&op(&["create", "--file"], &[&file, &mount.point()]))?;
        wait_until("all is there", SOON, || fs::metadata(mount.at("all")).is_ok_and(|found| found.len() == 16));
        let text = fs::read_to_string(mount.at("all"))?;
        assert!(text == "1,x\n2,\"y,z\"\n3,x\n" || text == "3,x\n1,x\n2,\"y,z\"\n", "{text}");
        let shown = op(&["ls"], &[&mount.point()]);
        assert!(String::from_utf8_lossy(&shown.stdout).contains("merge a.stream, b.stream into all"), "{shown:?}");
        well(&op(&["rm", "all", "--on"], &[&mount.point()]))?;
        fs::write(&file, "function = \"merge\"\ninputs = [\"a.stream\"\noutput = \"all\"\n")?;
        let said = op(&["create", "--file"], &[&file, &mount.point()]);
        assert!(String::from_utf8_lossy(&said.stderr).contains("line 3"), "{said:?}");
        remove(mount, &["a.stream", "b.stream", "all"])?;
    }

    fn what_makes_no_sense_is_refused_and_changes_nothing(mount: &Mount) {
        let (input, other) = (mount.at("in.stream"), mount.at("other"));
        append(&input, "1\n")?;
        fs::write(mount.at("plain"), "no stream")?;
        let shuffle = ["create", "shuffle", "--by", "record", "--partitions", "2", "--into"];
        refused(&op(&shuffle, &[&other, &mount.at("plain")]), "plain: it is no stream");
        refused(&op(&shuffle, &[&other, &mount.at("missing")]), "missing: ");
        refused(&op(&shuffle, &[&input, &input]), "would be an input and the output");
        refused(&op(&shuffle, &[&mount.at("plain"), &input]), "there is such a name already");
        let filter = ["create", "filter", "--where", "value.x >", "--into"];
        refused(&op(&filter, &[&other, &input]), "the expression doesn't parse at column 10");
        refused(&op(&["create", "shuffle", "--partitions", "2", "--into"], &[&other, &input]), "needs a key");
        refused(&op(&["rm", "none", "--on"], &[&mount.point()]), "there is no operator none");
        assert!(!other.exists());
        well(&op(&shuffle, &[&other, &input]))?;
        // It is there, and does just that.
        well(&op(&shuffle, &[&other, &input]))?;
        let back = ["create", "merge", "--name", "back", "--into"];
        refused(&op(&back, &[&input, &other.join("0")]), "would feed each other for ever");
        let opened = OpenOptions::new().append(true).open(other.join("0"));
        assert_eq!(opened.expect_err("the operator's alone").raw_os_error(), Some(libc::EPERM));
        well(&op(&["rm", "other", "--on"], &[&mount.point()]))?;
        remove(mount, &["in.stream", "other"])?;
    }
}
