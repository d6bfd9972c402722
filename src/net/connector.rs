use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header, uri::Scheme};
use http_body_util::Empty;
use hyper::{client::conn::http1, rt, upgrade::Upgraded};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{Connected, Connection, HttpConnector},
        proxy::matcher::Intercept,
    },
    rt::TokioIo,
};
use tokio::{net::TcpStream, time::timeout};
use tonic::codegen::{Service, StdError};

use super::{
    proxies::{Protocol, Proxies, port},
    with_causes,
};

/// A connection to a proxy.
type ToProxy = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Opens connections to backends, directly or by way of the proxy that the environment names.
#[derive(Clone)]
pub(super) struct Connector {
    protocol: Protocol,
    proxies: Proxies,
    tcp: HttpConnector,
    /// For proxies that speak TLS themselves, if there are any.
    tls: Option<HttpsConnector<HttpConnector>>,
    timeout: Duration,
}

impl Connector {
    /// A connector for these destinations.
    ///
    /// # Errors
    /// For people: a proxy that would be used can't be.
    pub(super) fn new<'a>(protocol: Protocol, destinations: impl IntoIterator<Item = &'a Uri>, timeout: Duration) -> Result<Self, String> {
        let proxies = Proxies::from_env();
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(timeout));
        let mut tls = None;
        for to in destinations {
            let Some(proxy) = proxies.before(to, protocol)? else { continue };
            let (host, proxy) = (to.host().unwrap_or_default(), proxy.uri());
            tracing::info!(host, port = port(to), %proxy, "is reached by way of a proxy that the environment names");
            if proxy.scheme() == Some(&Scheme::HTTPS) && tls.is_none() {
                let roots = HttpsConnectorBuilder::new().with_native_roots().map_err(|error| format!("the system's certificates: {error}"))?;
                tls = Some(roots.https_or_http().enable_http1().wrap_connector(tcp.clone()));
            }
        }
        Ok(Self { protocol, proxies, tcp, tls, timeout })
    }

    /// What a proxy that passes requests on has to be told with each request for a destination.
    pub(super) fn credentials(&self, to: &Uri) -> Option<HeaderValue> {
        if self.protocol.is_tunnelled(to) {
            return None;
        }
        self.proxies.before(to, self.protocol).ok()??.basic_auth().cloned()
    }

    async fn connect(mut self, to: Uri) -> Result<Link, StdError> {
        let Some(proxy) = self.proxies.before(&to, self.protocol)? else {
            return Ok(Link { io: Box::new(self.tcp.call(to).await?), forwards: false });
        };
        let limit = self.timeout;
        let reached = timeout(limit, self.by_way_of(&proxy, &to)).await;
        let reached = reached.unwrap_or_else(|_elapsed| Err(format!("no answer within {limit:?}").into()));
        reached.map_err(|error| format!("proxy {}: {}", proxy.uri(), with_causes(&*error)).into())
    }

    async fn by_way_of(&mut self, proxy: &Intercept, to: &Uri) -> Result<Link, StdError> {
        let stream = match &mut self.tls {
            Some(tls) => tls.call(proxy.uri().clone()).await?,
            None => MaybeHttpsStream::Http(self.tcp.call(proxy.uri().clone()).await?),
        };
        if self.protocol.is_tunnelled(to) {
            Ok(Link { io: Box::new(tunnel(stream, proxy, to).await?), forwards: false })
        } else {
            Ok(Link { io: Box::new(stream), forwards: true })
        }
    }
}

/// Asks a proxy to pass bytes on from here. hyper's own upgrade is used for it, and not hyper-util's `Tunnel`, which loses
/// what the backend says at once: servers of HTTP/2 do.
async fn tunnel(stream: ToProxy, proxy: &Intercept, to: &Uri) -> Result<Upgraded, StdError> {
    let backend = format!("{}:{}", to.host().unwrap_or_default(), port(to));
    let (mut requests, connection) = http1::handshake::<_, Empty<Bytes>>(stream).await?;
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    let mut request = Request::connect(backend.as_str()).header(header::HOST, backend.as_str()).body(Empty::new())?;
    if let Some(credentials) = proxy.basic_auth() {
        request.headers_mut().insert(header::PROXY_AUTHORIZATION, credentials.clone());
    }
    let answer = requests.send_request(request).await?;
    if !answer.status().is_success() {
        return Err(format!("it answers CONNECT {backend} with {}", answer.status()).into());
    }
    Ok(hyper::upgrade::on(answer).await?)
}

impl Service<Uri> for Connector {
    type Response = Link;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Link, StdError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        Box::pin(self.clone().connect(to))
    }
}

/// Anything that bytes go through.
trait Io: rt::Read + rt::Write + Send + Unpin {}

impl<T: rt::Read + rt::Write + Send + Unpin> Io for T {}

/// An open connection.
pub(super) struct Link {
    io: Box<dyn Io>,
    /// Whether it leads to a proxy that passes requests on, each of which has to name its backend.
    forwards: bool,
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.forwards)
    }
}

impl rt::Read for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: rt::ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl rt::Write for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }
}
