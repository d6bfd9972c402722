use std::{io::Cursor, net::IpAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, join},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connections::{Activity, Busy, Connections, Slot},
    control::Watched,
    door::Answer,
};

/// What one listener allows its connections.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Open at one time. When another one comes, the one that was idle longest is closed; while all are busy, further ones
    /// wait in the kernel.
    pub connections: usize,
    /// From accept to the first bytes that tell the protocol.
    pub first_bytes: Duration,
    /// For the head of an HTTP/1 request, and between two of them.
    pub header: Duration,
    /// A connection without a request for so long is closed; `None` means never.
    pub idle: Option<Duration>,
    /// A connection as old as that is asked to go; zero means never.
    pub age: Duration,
    /// HTTP/2 pings after so long a silence, if at all …
    pub ping: Option<Duration>,
    /// … and closes when no answer comes within this.
    pub ping_timeout: Duration,
    /// Requests at one time on one HTTP/2 connection.
    pub streams: u32,
}

/// Bytes of a request's head that are accepted.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Size of the HTTP/2 frames we ask for: a usual request comes in one and needs no putting together.
pub(super) const FRAME_BYTES: u32 = 256 << 10;
/// HTTP/2 flow control windows: bytes that may be under way unasked.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// How an HTTP/2 connection begins (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long accepting pauses when the process is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Accepts connections and answers their requests until `stop` is cancelled; then lets open requests finish and
/// returns when the last connection is gone. Drop the future to cut them off.
///
/// `answer` is told the peer's address; `reached` is told the name of a limit that ended a connection.
pub async fn serve<F, R, L>(listener: TcpListener, limits: ConnectionLimits, stop: CancellationToken, answer: F, reached: L)
where
    F: Fn(Request<Incoming>, IpAddr) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Answer>> + Send + 'static,
    L: Fn(&'static str) + Clone + Send + Sync + 'static,
{
    let connections = TaskTracker::new();
    // Cuts off what is still open when this future is dropped.
    let cut = CancellationToken::new();
    let _cut_on_drop = cut.clone().drop_guard();
    let open = Connections::new(limits.connections);
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (slot, one_went) = open.take().await;
                    if one_went {
                        reached("max_connections");
                    }
                    let (answer, peer) = (answer.clone(), peer.ip().to_canonical());
                    let answer = move |request| answer(request, peer);
                    let one = connection(stream, limits, slot, stop.clone(), answer, reached.clone());
                    let cut = cut.clone();
                    connections.spawn(async move {
                        cut.run_until_cancelled(one).await;
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: trying again at once would only burn the CPU.
                    tracing::warn!(%error, "can't accept a connection; pausing");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accepting).await;
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// One connection, from its first byte to its end, or until its place is given to another one.
async fn connection<F, R, L>(stream: TcpStream, limits: ConnectionLimits, slot: Slot, stop: CancellationToken, answer: F, reached: L)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Answer>> + Send + 'static,
    L: Fn(&'static str),
{
    let activity = Arc::clone(&slot.activity);
    if slot.evicted.run_until_cancelled(talk(stream, limits, activity, stop, answer, reached)).await.is_none() {
        tracing::debug!("closed the connection that was idle longest: another one came, and there are `max_connections`");
    }
}

async fn talk<F, R, L>(mut stream: TcpStream, limits: ConnectionLimits, activity: Arc<Activity>, stop: CancellationToken, answer: F, reached: L)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Answer>> + Send + 'static,
    L: Fn(&'static str),
{
    // A request waits for nothing; failing to say so only costs latency.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "can't set TCP_NODELAY");
    }
    let Ok(Some(first)) = timeout(limits.first_bytes, first_bytes(&mut stream)).await else { return };
    let http2 = first.starts_with(PREFACE);
    let (read, write) = stream.into_split();
    let read = Cursor::new(first.freeze()).chain(read);
    let seen = Arc::clone(&activity);
    let service = service_fn(move |request| {
        let busy = Busy::with(&seen);
        let response = answer(request);
        async move {
            let response = response.await;
            busy.answered();
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    if http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.ping)
            .keep_alive_timeout(limits.ping_timeout)
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(HEADER_BYTES_MAX)
            .max_frame_size(FRAME_BYTES)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let io = TokioIo::new(join(Watched::new(read, Arc::clone(&activity)), write));
        let mut served = std::pin::pin!(builder.serve_connection(io, service));
        tokio::select! {
            ended = served.as_mut() => return note(ended, &activity, reached),
            () = end(&activity, limits, &stop) => {}
        }
        served.as_mut().graceful_shutdown();
        note(served.await, &activity, reached);
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(limits.header).max_buf_size(HEADER_BYTES_MAX as usize * 2);
        let io = TokioIo::new(join(read, write));
        let mut served = std::pin::pin!(builder.serve_connection(io, service));
        tokio::select! {
            ended = served.as_mut() => return note(ended, &activity, reached),
            () = end(&activity, limits, &stop) => {}
        }
        served.as_mut().graceful_shutdown();
        note(served.await, &activity, reached);
    }
}

/// Reads until the protocol is known: the whole HTTP/2 preface, or anything that can't become one.
async fn first_bytes(stream: &mut TcpStream) -> Option<BytesMut> {
    let mut first = BytesMut::with_capacity(4 << 10);
    loop {
        if stream.read_buf(&mut first).await.ok()? == 0 {
            return None;
        }
        if first.len() >= PREFACE.len() || !PREFACE.starts_with(&first) {
            return Some(first);
        }
    }
}

/// Waits until a connection should end: the server stops, or the connection is idle or old.
async fn end(activity: &Activity, limits: ConnectionLimits, stop: &CancellationToken) {
    let look = limits.idle.unwrap_or(Duration::MAX).min(Duration::from_secs(10)).max(Duration::from_millis(10));
    let ripe = async {
        loop {
            tokio::time::sleep(look).await;
            let old = !limits.age.is_zero() && activity.age() > limits.age;
            if old || limits.idle.is_some_and(|idle| activity.idle_for() > idle) {
                return;
            }
        }
    };
    stop.run_until_cancelled(ripe).await;
}

fn note(ended: Result<(), hyper::Error>, activity: &Activity, reached: impl Fn(&'static str)) {
    if let Err(error) = ended {
        if activity.is_flooded() {
            reached("control_frames");
        }
        tracing::debug!(%error, "connection ended");
    }
}
