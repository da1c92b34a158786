// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock, inotify};
use serde::Deserialize;
use serde_json::Value;

/// The folder of objects, as a person with an editor uses it.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes an object, in the file where it is or in a new one; what the file says about status stays.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn apply(&self, object: &Value) -> Result<()> {
        let key = key(object).context("the object has no kind and name")?;
        let _lock = self.lock()?;
        let file = self.files()?.into_iter().find(|(_, objects)| objects.iter().any(|o| is(o, &key)));
        let (path, mut objects) = file.unwrap_or_else(|| {
            let name = [&key.0, &key.1, &key.2].map(|part| part.to_lowercase()).join(".");
            (self.path.join(format!("{}.yaml", name.replace("..", "."))), vec![object.clone()])
        });
        for held in &mut objects {
            if is(held, &key) {
                let status = held.get("status").cloned();
                *held = object.clone();
                if let (Some(status), None) = (status, held.get("status")) {
                    held["status"] = status;
                }
            }
        }
        write(&path, &objects)
    }

    /// Deletes an object; its absence is success.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        let _lock = self.lock()?;
        for (path, mut objects) in self.files()? {
            let before = objects.len();
            objects.retain(|object| !is(object, &key));
            if objects.is_empty() && before > 0 {
                fs::remove_file(path)?;
            } else if objects.len() < before {
                write(&path, &objects)?;
            }
        }
        Ok(())
    }

    /// An object, if it is there.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        Ok(self.files()?.into_iter().flat_map(|(_, objects)| objects).find(|object| is(object, &key)))
    }

    /// Waits until `look` finds something, looking again whenever the folder changes.
    ///
    /// # Errors
    /// When `patience` is over before, or `look` fails.
    pub fn wait_until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(&Store) -> Result<Option<T>>,
    ) -> Result<T> {
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_FROM;
        inotify::add_watch(&changes, &self.path, events)?;
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the store does not show {what} after {patience:?}");
            }
            poll(&mut [PollFd::new(&changes, PollFlags::IN)], Some(&left.try_into()?))?;
            while rustix::io::read(&changes, &mut [0; 4096]).is_ok() {}
        }
    }

    /// The lock that orders all writers of the folder, held until the value is dropped.
    fn lock(&self) -> Result<fs::File> {
        let lock = fs::File::options().create(true).append(true).open(self.path.join(".lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    }

    /// Every file with its objects; a file that is not YAML of objects has none.
    fn files(&self) -> Result<Vec<(PathBuf, Vec<Value>)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path).with_context(|| format!("list {}", self.path.display()))? {
            let path = entry?.path();
            let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            let Some(text) = (yaml && !hidden).then(|| fs::read_to_string(&path).ok()).flatten() else {
                continue;
            };
            let objects = serde_yaml_ng::Deserializer::from_str(&text)
                .filter_map(|document| Value::deserialize(document).ok())
                .filter(|object| key(object).is_some())
                .collect();
            files.push((path, objects));
        }
        files.sort_by(|(a, _): &(PathBuf, _), (b, _)| a.cmp(b));
        Ok(files)
    }
}

type Key = (String, String, String);

fn key(object: &Value) -> Option<Key> {
    let kind = object.get("kind")?.as_str()?;
    let metadata = object.get("metadata")?;
    let namespace = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
    Some((kind.to_owned(), namespace.to_owned(), metadata.get("name")?.as_str()?.to_owned()))
}

fn is(object: &Value, wanted: &Key) -> bool {
    key(object).as_ref() == Some(wanted)
}

/// Replaces a file at once, so that no reader sees half of it.
fn write(path: &Path, objects: &[Value]) -> Result<()> {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_yaml_ng::to_string(object)?);
    }
    let folder = path.parent().context("a file is in a folder")?;
    let name = path.file_name().context("a file has a name")?.to_string_lossy();
    let fresh = folder.join(format!(".{name}.{}", std::process::id()));
    fs::write(&fresh, text)?;
    Ok(fs::rename(fresh, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, note: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "note": note})
    }

    #[test]
    fn an_object_is_replaced_where_it_is_and_its_neighbour_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path().to_owned());
        write(&folder.path().join("both.yaml"), &[pod("a", "1"), pod("b", "1")]).expect("written");
        store.apply(&pod("b", "2")).expect("applied");
        store.delete("Pod", "default", "a").expect("deleted");
        assert_eq!(store.get("Pod", "default", "b").expect("read"), Some(pod("b", "2")));
        assert_eq!(store.get("Pod", "default", "a").expect("read"), None);
        assert_eq!(store.files().expect("listed").len(), 1);
    }

    #[test]
    fn status_stays_when_the_rest_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path().to_owned());
        let mut with_status = pod("a", "1");
        with_status["status"] = json!({"phase": "Running"});
        store.apply(&with_status).expect("applied");
        store.apply(&pod("a", "2")).expect("applied");
        let held = store.get("Pod", "default", "a").expect("read").expect("there");
        assert_eq!((&held["note"], &held["status"]["phase"]), (&json!("2"), &json!("Running")));
    }
}
