//! Connecting to a PostgreSQL server: its addresses in their order, the socket, and who we are.
//!
//! What a URL may say is what the `postgres` crate reads out of it. Runs on the store's connecting thread, and on the thread
//! that opens, migrates or makes a backup: looking up a name cannot be told when to end.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use postgres::Config;
use postgres::config::{ChannelBinding, Host, LoadBalanceHosts, TargetSessionAttrs};
use postgres::fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use rustix::net::sockopt;

use super::client::Client;
use super::error::Error;
use super::socket::{Socket, Stream};
use crate::limits::{POSTGRES_CONNECT_TIMEOUT, POSTGRES_STATEMENT_TIMEOUT};

/// Connects to the first of the server's addresses that lets us in.
///
/// # Blocks
/// For each address at most the connect timeout, and `POSTGRES_STATEMENT_TIMEOUT` for the server's welcome; and for the lookup of
/// a name.
///
/// # Errors
/// The last address's.
pub(super) fn connect(config: &Config) -> Result<Client, Error> {
    let mut failed = refusal("the URL names no host");
    for (host, port) in hosts(config)? {
        let connected = match host {
            Host::Tcp(host) => connect_tcp(config, &host, port),
            Host::Unix(folder) => {
                let path = folder.join(format!(".s.PGSQL.{port}"));
                UnixStream::connect(path).map_err(Error::Io).and_then(|stream| greet(config, Stream::Unix(stream)))
            }
        };
        match connected {
            Ok(client) => return Ok(client),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The hosts with their ports; a `hostaddr` stands for its host.
fn hosts(config: &Config) -> Result<Vec<(Host, u16)>, Error> {
    let (names, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = names.len().max(addresses.len());
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err(refusal("the URL has more hosts than addresses of hosts, or less"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(refusal("the URL has more ports than hosts, or less"));
    }
    let mut hosts: Vec<(Host, u16)> = (0..count)
        .filter_map(|number| {
            let address = addresses.get(number).map(|address| Host::Tcp(address.to_string()));
            let port = ports.get(number).or(ports.first()).copied().unwrap_or(5432);
            address.or_else(|| names.get(number).cloned()).map(|host| (host, port))
        })
        .collect();
    shuffle(config, &mut hosts);
    Ok(hosts)
}

fn connect_tcp(config: &Config, host: &str, port: u16) -> Result<Client, Error> {
    let timeout = config.get_connect_timeout().copied().unwrap_or(POSTGRES_CONNECT_TIMEOUT);
    let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    shuffle(config, &mut addresses);
    let mut failed = refusal("the host has no address");
    for address in addresses {
        let stream = TcpStream::connect_timeout(&address, timeout).and_then(|stream| with_options(config, stream));
        match stream.map_err(Error::Io).and_then(|stream| greet(config, Stream::Tcp(stream))) {
            Ok(client) => return Ok(client),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn shuffle<T>(config: &Config, all: &mut [T]) {
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        for upper in (1..all.len()).rev() {
            let other = crate::random::u64() % (upper as u64 + 1);
            all.swap(upper, usize::try_from(other).unwrap_or(upper));
        }
    }
}

fn with_options(config: &Config, stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    if let Some(silence) = config.get_tcp_user_timeout() {
        sockopt::set_tcp_user_timeout(&stream, u32::try_from(silence.as_millis()).unwrap_or(u32::MAX))?;
    }
    if config.get_keepalives() {
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, config.get_keepalives_idle().max(Duration::from_secs(1)))?;
        if let Some(interval) = config.get_keepalives_interval() {
            sockopt::set_tcp_keepintvl(&stream, interval.max(Duration::from_secs(1)))?;
        }
        if let Some(retries) = config.get_keepalives_retries() {
            sockopt::set_tcp_keepcnt(&stream, retries)?;
        }
    }
    Ok(stream)
}

/// Says who we are, and waits until the server is ready.
fn greet(config: &Config, stream: Stream) -> Result<Client, Error> {
    let mut socket = Socket::new(stream, Some(Instant::now() + POSTGRES_STATEMENT_TIMEOUT));
    let user = match config.get_user() {
        Some(user) => user.to_owned(),
        None => own_name().ok_or_else(|| refusal("the URL names no user"))?,
    };
    let mut params = vec![("client_encoding", "UTF8"), ("user", &*user)];
    params.extend(config.get_dbname().map(|name| ("database", name)));
    params.extend(config.get_options().map(|options| ("options", options)));
    params.extend(config.get_application_name().map(|name| ("application_name", name)));
    frontend::startup_message(params, socket.outgoing())?;
    authenticate(config, &user, &mut socket)?;
    wait_until_ready(&mut socket)?;
    let mut client = Client::new(socket);
    check_attributes(config, &mut client)?;
    client.set_deadline(None);
    Ok(client)
}

fn authenticate(config: &Config, user: &str, socket: &mut Socket) -> Result<(), Error> {
    let password = || config.get_password().ok_or_else(|| refusal("the server wants a password, and the URL has none"));
    match ask(socket)? {
        Message::AuthenticationOk => return no_binding(config),
        Message::AuthenticationCleartextPassword => {
            no_binding(config)?;
            frontend::password_message(password()?, socket.outgoing())?;
        }
        Message::AuthenticationMd5Password(body) => {
            no_binding(config)?;
            let hashed = md5_hash(user.as_bytes(), password()?, body.salt());
            frontend::password_message(hashed.as_bytes(), socket.outgoing())?;
        }
        Message::AuthenticationSasl(body) => {
            no_binding(config)?;
            authenticate_sasl(&body, password()?, socket)?;
        }
        _ => return Err(refusal("the server wants a kind of authentication that is not built in")),
    }
    match ask(socket)? {
        Message::AuthenticationOk => Ok(()),
        _ => Err(Error::Strange("the server did not end the authentication".to_owned())),
    }
}

/// A channel can only be bound with TLS.
fn no_binding(config: &Config) -> Result<(), Error> {
    match config.get_channel_binding() {
        ChannelBinding::Require => Err(refusal("channel_binding=require: connections with TLS are not built in")),
        _ => Ok(()),
    }
}

fn authenticate_sasl(body: &AuthenticationSaslBody, password: &[u8], socket: &mut Socket) -> Result<(), Error> {
    let is_known = body.mechanisms().any(|mechanism| Ok(mechanism == sasl::SCRAM_SHA_256))?;
    if !is_known {
        return Err(refusal("the server wants a kind of SASL that is not built in"));
    }
    let mut scram = ScramSha256::new(password, sasl::ChannelBinding::unsupported());
    frontend::sasl_initial_response(sasl::SCRAM_SHA_256, scram.message(), socket.outgoing())?;
    let Message::AuthenticationSaslContinue(body) = ask(socket)? else {
        return Err(Error::Strange("the server did not go on with SASL".to_owned()));
    };
    scram.update(body.data()).map_err(|error| refusal(&error.to_string()))?;
    frontend::sasl_response(scram.message(), socket.outgoing())?;
    let Message::AuthenticationSaslFinal(body) = ask(socket)? else {
        return Err(Error::Strange("the server did not end SASL".to_owned()));
    };
    scram.finish(body.data()).map_err(|error| refusal(&error.to_string()))
}

fn wait_until_ready(socket: &mut Socket) -> Result<(), Error> {
    while !matches!(ask(socket)?, Message::ReadyForQuery(_)) {}
    Ok(())
}

/// Sends what was put and waits for an answer; an error of the server's is one.
fn ask(socket: &mut Socket) -> Result<Message, Error> {
    socket.flush()?;
    loop {
        match socket.message()? {
            Message::ErrorResponse(body) => return Err(Error::refused(body.fields())),
            Message::NoticeResponse(body) => log::debug!("postgres: {}", Error::refused(body.fields())),
            message => return Ok(message),
        }
    }
}

/// `target_session_attrs`: a server that is (not) a standby.
fn check_attributes(config: &Config, client: &mut Client) -> Result<(), Error> {
    let wanted = match config.get_target_session_attrs() {
        TargetSessionAttrs::ReadWrite => "off",
        TargetSessionAttrs::ReadOnly => "on",
        _ => return Ok(()),
    };
    let statement = client.prepared("SHOW transaction_read_only")?;
    client.put(&statement, &[])?;
    client.flush()?;
    let mut is_wanted = Ok(false);
    client.answer(Some(statement.columns()), &mut |row| {
        is_wanted = row.try_get::<&str>(0).map(|has| has == wanted);
    })?;
    if is_wanted? { Ok(()) } else { Err(refusal("the server is a standby, or is none, against the URL's wish")) }
}

/// The name of the user that this process runs as, which is who connects if the URL does not say.
fn own_name() -> Option<String> {
    let own = rustix::process::geteuid().as_raw().to_string();
    let users = std::fs::read_to_string(Path::new("/etc/passwd")).unwrap_or_default();
    let known = users.lines().map(|line| line.split(':')).find_map(|mut fields| {
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id == own).then(|| name.to_owned())
    });
    known.or_else(|| std::env::var("USER").ok())
}

fn refusal(why: &str) -> Error {
    Error::Io(io::Error::new(ErrorKind::Unsupported, why))
}
