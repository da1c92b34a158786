// SPDX-License-Identifier: Apache-2.0
//! The stream of hooks: who connects gets every hook so far and every one that comes, one JSON object a line.
//!
//! ```text
//! {"at":12345,"event":"attached","instance":"i-…","interface":"eni-…","mac":"02:…","deviceIndex":1,"card":0}
//! ```

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Handle;

pub(super) async fn serve(listener: TcpListener, handle: Handle) {
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    readers.spawn(stream_to(stream, handle.clone()));
                }
            }
            Some(_) = readers.join_next() => {}
        }
    }
}

async fn stream_to(mut stream: TcpStream, handle: Handle) {
    let mut changed = handle.shared.changed.subscribe();
    let mut told = 0;
    loop {
        let hooks = handle.hooks(told);
        told += hooks.len();
        for hook in hooks {
            let Ok(mut line) = serde_json::to_string(&hook) else { return };
            line.push('\n');
            if stream.write_all(line.as_bytes()).await.is_err() {
                return;
            }
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}
