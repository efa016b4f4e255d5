//! Syslog over UDP, TCP or TLS.
//!
//! Syslog has no answer. Over TCP and TLS a message counts as delivered once this machine's kernel
//! has it and the receiver had not hung up; over UDP once it is sent.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use countersign_protocol::checkpoint::Origin;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::config::{SyslogTo, Transport};
use super::message::Message;
use super::outlet::Trouble;
use super::syslog;

/// How long connecting may take, and how long the receiver may leave us with full buffers.
const PATIENCE: Duration = Duration::from_secs(10);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

enum Line {
    Datagrams(UdpSocket),
    Stream(Box<dyn Stream>),
}

/// A syslog receiver.
pub(super) struct SyslogOutlet {
    to: SyslogTo,
    origin: Origin,
    line: Option<Line>,
}

impl fmt::Debug for SyslogOutlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyslogOutlet")
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

fn unreachable(error: impl fmt::Display) -> Trouble {
    Trouble::Unreachable(error.to_string())
}

/// Something that must be done soon.
async fn soon<T>(doing: impl Future<Output = std::io::Result<T>> + Send) -> Result<T, Trouble> {
    match timeout(PATIENCE, doing).await {
        Ok(done) => done.map_err(unreachable),
        Err(_late) => Err(Trouble::Timeout),
    }
}

impl SyslogOutlet {
    pub(super) const fn new(to: SyslogTo, origin: Origin) -> Self {
        Self {
            to,
            origin,
            line: None,
        }
    }

    /// Sends all of them. After trouble the connection is made anew.
    pub(super) async fn send(&mut self, messages: &[Message]) -> Result<(), Trouble> {
        let mut line = match self.line.take() {
            Some(line) => line,
            None => connect(&self.to).await?,
        };
        if has_hung_up(&mut line).await {
            line = connect(&self.to).await?;
        }
        match &mut line {
            Line::Datagrams(socket) => {
                for message in messages {
                    let text = syslog::datagram(message, &self.origin);
                    soon(socket.send(text.as_bytes())).await?;
                }
            }
            Line::Stream(stream) => {
                let mut bytes = Vec::new();
                for message in messages {
                    syslog::frame(message, &self.origin, &mut bytes);
                }
                let sent = async {
                    stream.write_all(&bytes).await?;
                    stream.flush().await
                };
                soon(sent).await?;
            }
        }
        if has_hung_up(&mut line).await {
            return Err(unreachable("it hung up while messages were on their way"));
        }
        self.line = Some(line);
        Ok(())
    }
}

/// Whether the receiver has closed the connection, as far as it is known here by now. Whatever it
/// says is read and dropped: syslog has no answers.
async fn has_hung_up(line: &mut Line) -> bool {
    let Line::Stream(stream) = line else {
        return false;
    };
    let mut dropped = [0; 512];
    // What is there is read, and nothing is waited for.
    while let Ok(read) = timeout(Duration::ZERO, stream.read(&mut dropped)).await {
        if !matches!(read, Ok(1..)) {
            return true;
        }
    }
    false
}

async fn connect(to: &SyslogTo) -> Result<Line, Trouble> {
    match &to.transport {
        Transport::Udp => {
            let address = soon(lookup_host((to.host.as_str(), to.port))).await?.next();
            let address = address.ok_or_else(|| unreachable("its name has no address"))?;
            let here: SocketAddr = if address.is_ipv4() {
                (Ipv4Addr::UNSPECIFIED, 0).into()
            } else {
                (Ipv6Addr::UNSPECIFIED, 0).into()
            };
            let socket = UdpSocket::bind(here).await.map_err(unreachable)?;
            socket.connect(address).await.map_err(unreachable)?;
            Ok(Line::Datagrams(socket))
        }
        Transport::Tcp => Ok(Line::Stream(Box::new(tcp(to).await?))),
        Transport::Tls { name, config } => {
            let connector = TlsConnector::from(Arc::clone(config));
            let stream = soon(connector.connect(name.clone(), tcp(to).await?)).await?;
            Ok(Line::Stream(Box::new(stream)))
        }
    }
}

async fn tcp(to: &SyslogTo) -> Result<TcpStream, Trouble> {
    soon(TcpStream::connect((to.host.as_str(), to.port))).await
}
