// SPDX-License-Identifier: Apache-2.0
//! Bad files in, messages out. With UPDATE=1 in the environment the expected messages are written anew.

use std::path::Path;

use crate::room::{Room, problems};

#[tokio::test]
async fn every_bad_file_is_reported_with_line_and_field() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder of bad files") {
        let path = entry.expect("read").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        seen += 1;
        let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
        let room = Room::new();
        room.write(name, std::fs::read(&path).expect("read"));
        let store = room.open().await;
        let found = problems(&store, |_| true).await;
        let text: String = found.iter().map(|problem| format!("{problem}\n")).collect();
        let expected = path.with_extension("txt");
        if update {
            std::fs::write(&expected, &text).expect("written");
        }
        let wanted = std::fs::read_to_string(&expected).unwrap_or_default();
        if text.is_empty() || text != wanted {
            wrong.push(format!("{name}\n  wanted:\n{wanted}\n  found:\n{text}"));
        }
    }
    assert!(seen >= 20, "only {seen} bad files");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
