//! `aimss status` of a mount with streams: what somebody with an alert on it needs.

use aimss_mount_tests::{Mount, both_modes};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};

both_modes! {
    fn status_tells_of_streams_and_of_the_group_that_is_most_behind(mount: &Mount) {
        let before = mount.status()?;
        assert_eq!((before["streams"]["logs"].as_u64(), before["streams"]["open"].as_u64()), (Some(0), Some(0)));
        assert!(before["streams"]["groups"]["worst"].is_null(), "{before}");
        fs::create_dir(mount.at("d"))?;
        let mut writer = OpenOptions::new().create(true).append(true).open(mount.at("d/x.stream"))?;
        writer.write_all(&b"line\n".repeat(1000))?;
        File::create(mount.at("idle.stream"))?;
        let mut first = File::open(mount.at("d/x.stream@first"))?;
        let mut buffer = [0; 500];
        for _ in 0..2 {
            assert_eq!(first.read(&mut buffer)?, 500);
        }
        drop(File::open(mount.at("d/x.stream@second"))?);
        let status = mount.status()?;
        let streams = &status["streams"];
        let number = |name: &str| streams[name].as_u64();
        assert_eq!((number("logs"), number("open"), number("writers")), (Some(2), Some(2), Some(1)), "{streams}");
        assert_eq!((number("records"), number("bytes")), (Some(1000), Some(5000)), "{streams}");
        assert!(number("memory") >= Some(5000), "{streams}");
        let groups = &streams["groups"];
        let number = |name: &str| groups[name].as_u64();
        assert_eq!((number("number"), number("members")), (Some(2), Some(1)), "{groups}");
        // The first has acknowledged its first batch by coming back.
        assert_eq!((number("lag"), number("unattended")), (Some(1900), Some(1)), "{groups}");
        assert_eq!((number("delivered"), number("lost")), (Some(200), Some(0)), "{groups}");
        let worst = serde_json::json!({"stream": "d/x.stream", "group": "second", "lag": 1000, "members": 0});
        assert_eq!(groups["worst"], worst);
        drop((writer, first));
        mount.drain()?;
        assert_eq!(mount.status()?["streams"]["unflushed"].as_u64(), Some(0));
        let text = mount.aimss(&["status"]);
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        assert!(text.contains("  streams    2, 2 in use, 0 writers"), "{text}");
        assert!(text.contains("d/x.stream@second"), "{text}");
        // What a stream shows is not what is behind it.
        fs::remove_dir_all(mount.at("d"))?;
        fs::remove_file(mount.at("idle.stream"))?;
    }
}
