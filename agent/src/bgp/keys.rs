// SPDX-License-Identifier: Apache-2.0
//! Finds the keys of sessions: entries of Secret objects, and files of the node. Nothing here shows one.

use std::path::Path;

use rhumb_api::{BGPPeerConfig, ObjectKey, Secret as Object, Store};
use rhumb_bgp_feed::Secret;

use super::inputs::{Keys, SECRET_NAMESPACE};

/// Longest key in bytes that the kernel takes (`TCP_MD5SIG_MAXKEYLEN`).
const LONGEST: usize = 80;

/// Reads every key that these objects name. What is not there is left out, and a file says why.
pub(super) async fn read<S: Store>(store: &S, configs: impl Iterator<Item = &BGPPeerConfig>) -> Keys {
    let mut keys = Keys::default();
    for reference in configs.filter_map(|config| config.spec.auth_secret.as_ref()) {
        if let Some(file) = &reference.file {
            keys.files.insert(file.clone(), read_file(file));
        }
        let Some(name) = &reference.name else { continue };
        let namespace = reference.namespace.as_deref().unwrap_or(SECRET_NAMESPACE);
        let key = ObjectKey::namespaced(namespace, name);
        // A store that cannot be read now is asked again soon, as for a Secret that is not there.
        if let Ok(Some(object)) = store.get::<Object>(&key).await {
            keys.secrets.insert(key, entries(&object));
        }
    }
    keys
}

/// The entries that can be keys.
fn entries(object: &Object) -> std::collections::BTreeMap<String, Secret> {
    let data = object.data.iter().flatten();
    let data = data.filter_map(|(entry, value)| Some((entry, str::from_utf8(&value.0).ok()?)));
    let plain = object.string_data.iter().flatten().map(|(entry, value)| (entry, value.as_str()));
    let all = data.chain(plain);
    all.filter_map(|(entry, text)| Some((entry.clone(), key(text).ok()?))).collect()
}

fn read_file(path: &Path) -> Result<Secret, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    key(&text)
}

/// A text as a key, without the newline that editors put at its end.
fn key(text: &str) -> Result<Secret, String> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    if text.is_empty() || text.len() > LONGEST {
        return Err(format!("{} bytes: want 1 to {LONGEST}", text.len()));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_the_key_and_perhaps_a_newline() {
        let folder = tempfile::tempdir().expect("made");
        let path = folder.path().join("key");
        for (content, expected) in
            [("s3cret", Ok("s3cret")), ("s3cret\n", Ok("s3cret")), ("", Err(())), ("\n", Err(()))]
        {
            std::fs::write(&path, content).expect("written");
            let read = read_file(&path);
            assert_eq!(read.as_ref().map(Secret::expose).map_err(|_| ()), expected, "{content:?}");
        }
        std::fs::write(&path, "x".repeat(81)).expect("written");
        assert_eq!(read_file(&path), Err("81 bytes: want 1 to 80".into()));
        std::fs::remove_file(&path).expect("removed");
        assert!(read_file(&path).is_err());
    }

    #[test]
    fn both_forms_of_a_secret_are_read_and_no_error_tells_a_key() {
        let object: Object = serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tor"},
            "data": {"md5": "czNjcmV0", "binary": "/w=="}, "stringData": {"plain": "other"},
        }))
        .expect("valid");
        let entries = entries(&object);
        let found: Vec<(&str, &str)> =
            entries.iter().map(|(entry, key)| (entry.as_str(), key.expose())).collect();
        assert_eq!(found, [("md5", "s3cret"), ("plain", "other")]);
        assert!(!format!("{entries:?}").contains("s3cret"));
    }
}
