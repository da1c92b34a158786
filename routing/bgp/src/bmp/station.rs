// SPDX-License-Identifier: Apache-2.0
//! The connection to one station: made again and again, written to one batch at a time, and cut when the station takes
//! nothing for long. There is no queue: the next batch is asked for when the kernel has taken the last.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tracing::{debug, info};

/// Waits between tries: the first, and the longest (RFC 7854 §3.2).
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What is asked of a station's task; when nobody can ask any more, it closes the connection.
#[derive(Debug)]
pub(crate) enum Order {
    /// Messages for the connection of this number.
    Send(u64, Bytes),
}

/// What a station's task says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// A connection of this number is there, and takes a batch.
    Ready(u64),
    /// It is gone.
    Gone(u64),
}

/// The task of one station.
#[derive(Debug)]
pub(crate) struct Station {
    /// By which the owner knows it.
    pub(crate) number: u64,
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// What is asked of it.
    pub(crate) orders: mpsc::Receiver<Order>,
    /// How long it may take to be connected, and to take a batch.
    pub(crate) patience: Duration,
    /// Where it says how it stands.
    pub(crate) lines: mpsc::Sender<(u64, Line)>,
}

impl Station {
    /// Runs until nobody asks for anything any more.
    pub(crate) async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        let mut connection = 0;
        while !self.orders.is_closed() {
            match tokio::time::timeout(self.patience, TcpStream::connect(self.address)).await {
                Ok(Ok(stream)) => {
                    connection += 1;
                    wait = FIRST_WAIT;
                    info!(station = %self.address, "a monitoring station is connected");
                    match self.serve(connection, stream).await {
                        Ok(()) => return,
                        Err(error) => info!(station = %self.address, %error, "a monitoring station is gone"),
                    }
                    if self.lines.send((self.number, Line::Gone(connection))).await.is_err() {
                        return;
                    }
                }
                Ok(Err(error)) => {
                    debug!(station = %self.address, %error, "a monitoring station does not answer")
                }
                Err(_) => debug!(station = %self.address, "a monitoring station does not answer"),
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (2 * wait).min(LONGEST_WAIT),
                () = closed(&mut self.orders) => return,
            }
        }
    }

    /// One connection; `Ok` when nobody asks for anything any more.
    async fn serve(&mut self, connection: u64, mut stream: TcpStream) -> io::Result<()> {
        let mut ignored = [0; 64];
        if self.lines.send((self.number, Line::Ready(connection))).await.is_err() {
            return Ok(());
        }
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Send(of, batch)) if of == connection => {
                        let written = tokio::time::timeout(self.patience, stream.write_all(&batch)).await;
                        written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                        if self.lines.send((self.number, Line::Ready(connection))).await.is_err() {
                            return Ok(());
                        }
                    }
                    Some(Order::Send(..)) => {}
                    None => return stream.shutdown().await,
                },
                // Stations say nothing (RFC 7854 §3.2); what they say all the same is nobody's.
                read = stream.read(&mut ignored) => {
                    if read? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }
}

/// Waits until nobody can ask any more. What was asked for a connection that is gone is dropped.
async fn closed(orders: &mut mpsc::Receiver<Order>) {
    while orders.recv().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn station(address: SocketAddr) -> (mpsc::Sender<Order>, mpsc::Receiver<(u64, Line)>, Station) {
        let (orders, inbox) = mpsc::channel(2);
        let (lines, said) = mpsc::channel(4);
        let patience = Duration::from_millis(200);
        (orders, said, Station { number: 3, address, orders: inbox, patience, lines })
    }

    fn on_runtime(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let all = async { tokio::time::timeout(Duration::from_secs(20), test).await };
        runtime.expect("a runtime").block_on(all).expect("in time");
    }

    #[test]
    fn a_station_that_takes_nothing_is_cut_off_and_connected_anew() {
        on_runtime(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
            let (orders, mut said, station) = station(listener.local_addr().expect("bound"));
            let task = tokio::spawn(station.run());
            let (first, _) = listener.accept().await.expect("connected");
            assert_eq!(said.recv().await, Some((3, Line::Ready(1))));
            let batch = Bytes::from(vec![7; 1 << 20]);
            let mut taken = 0;
            // What the kernel has room for is taken; it has none for all of it.
            let end = loop {
                orders.send(Order::Send(1, batch.clone())).await.expect("asked");
                match said.recv().await {
                    Some((3, Line::Ready(1))) => taken += 1,
                    other => break other,
                }
                assert!(taken < 1 << 10, "a gigabyte is somewhere");
            };
            assert_eq!(end, Some((3, Line::Gone(1))));
            let (second, _) = listener.accept().await.expect("connected anew");
            assert_eq!(said.recv().await, Some((3, Line::Ready(2))));
            // What was meant for the connection before is not said to this one.
            orders.send(Order::Send(1, batch)).await.expect("asked");
            orders.send(Order::Send(2, Bytes::from_static(b"bye"))).await.expect("asked");
            drop((first, orders));
            let mut heard = Vec::new();
            let mut second = second;
            second.read_to_end(&mut heard).await.expect("read");
            assert_eq!(heard, b"bye");
            task.await.expect("ended");
        });
    }

    #[test]
    fn a_station_that_leaves_is_looked_for_again() {
        on_runtime(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
            let (_orders, mut said, station) = station(listener.local_addr().expect("bound"));
            let _task = tokio::spawn(station.run());
            for number in 1..=2 {
                drop(listener.accept().await.expect("connected"));
                assert_eq!(said.recv().await, Some((3, Line::Ready(number))));
                assert_eq!(said.recv().await, Some((3, Line::Gone(number))));
            }
        });
    }
}
