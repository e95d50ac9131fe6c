//! Calls to etcd: any member will do, each call ends within its time, and a login is renewed when it runs out.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::discovery;
use super::message::{
    AuthenticateRequest, AuthenticateResponse, Header, LeaseGrantRequest, LeaseGrantResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};
use crate::settings::{EtcdSettings, Pem};

/// How long a member may take to be reached, and a call to be answered. Calico waits 10 s for the first.
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(10);
/// A connection without an answer for this long is asked whether it still lives (`etcdv3.go`).
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);
/// Largest answer, in bytes. etcd's values have 1.5 MiB at most, and lists come in pages.
const MAX_ANSWER: usize = 64 << 20;
/// Keys in one answer to a list, where nothing speaks against so many. For each page etcd counts all that are left, so small
/// pages make a long list slow.
const PAGE: i64 = 5_000;
/// What etcd calls the header with the login's token.
const TOKEN: &str = "token";

/// Why etcd didn't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No member can be reached, or the one that was asked didn't answer.
    #[error("etcd can't be reached: {0}")]
    Unreachable(String),
    /// A write was sent and not answered: it may have been done.
    #[error("etcd didn't answer: {0}; what was written may be there or not")]
    Unknown(String),
    /// What answers isn't an etcd, or one that has lost its wits.
    #[error("etcd's answer makes no sense: {0}")]
    Nonsense(&'static str),
    /// etcd says no.
    #[error("etcd refuses: {message}", message = .0.message())]
    Refused(Status),
}

impl Failure {
    /// Is a revision asked for that is no longer kept?
    pub(crate) fn is_compacted(&self) -> bool {
        matches!(self, Failure::Refused(status) if status.message().contains("has been compacted"))
    }

    /// Did the answer take too long?
    pub(crate) fn is_too_slow(&self) -> bool {
        matches!(self, Failure::Unreachable(reason) if reason.starts_with(TOO_SLOW))
    }

    /// Was the answer larger than what is taken?
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(self, Failure::Refused(status)
            if status.code() == Code::OutOfRange && status.message().contains("message length too large"))
    }
}

/// Who answered; nothing that etcd says of its store is without it.
///
/// # Errors
/// There is no header, or it is of no store: each begins at revision 1.
pub(crate) fn known(header: Option<Header>) -> Result<Header, Failure> {
    header
        .filter(|header| header.revision > 0)
        .ok_or(Failure::Nonsense("it doesn't say of which revision it is"))
}

/// What an answer that doesn't come in time is called.
const TOO_SLOW: &str = "no whole answer within";

/// May a call be made again where it isn't known whether it was heard?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Yes,
    No,
}

/// A connection to one member.
#[derive(Clone)]
struct Connection {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
    /// Which connection it is, so that who finds it broken doesn't take away its successor.
    number: u64,
}

#[derive(Default)]
struct Connecting {
    current: Option<Connection>,
    /// The member to try first.
    next: usize,
    connections: u64,
}

/// A member of an etcd.
struct Member {
    /// As the operator wrote it.
    address: String,
    endpoint: Endpoint,
}

/// An etcd of one or several members.
pub(crate) struct Client {
    members: Vec<Member>,
    login: Option<(String, String)>,
    connecting: Mutex<Connecting>,
    /// Keys to ask for at once: fewer where values are large, or the way is slow.
    page: AtomicI64,
}

impl Client {
    /// Reads certificates and addresses, those that a domain names too; nothing is connected yet.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn new(settings: &EtcdSettings) -> Result<Client, String> {
        let endpoints = match &settings.discovery_srv {
            Some(domain) => discovery::endpoints(domain)?,
            None => settings.endpoints.clone(),
        };
        if endpoints.is_empty() {
            return Err("no etcd endpoints specified".to_owned());
        }
        let tls = tls(settings)?;
        let uses_tls = settings.ca.is_some() || settings.identity.is_some();
        let mut members = Vec::new();
        for address in &endpoints {
            members.push(Member { address: address.clone(), endpoint: endpoint(address, uses_tls, &tls)? });
        }
        Ok(Client {
            members,
            login: settings.login.clone(),
            connecting: Mutex::default(),
            page: AtomicI64::new(PAGE),
        })
    }

    /// A key, or a page of a list. What it gives is what was asked for, in order.
    pub(crate) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Failure> {
        let (key, range_end) = (request.key.clone(), request.range_end.clone());
        let answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request, Repeat::Yes).await?;
        known(answer.header)?;
        let is_asked_for = |found: &[u8]| match range_end.as_slice() {
            [] => found == key,
            [0] => found >= key.as_slice(),
            end => found >= key.as_slice() && found < end,
        };
        if !answer.kvs.iter().all(|found| is_asked_for(&found.key)) {
            return Err(Failure::Nonsense("a key that wasn't asked for"));
        }
        if !answer.kvs.is_sorted_by(|one, next| one.key < next.key) {
            return Err(Failure::Nonsense("keys in no order"));
        }
        if answer.more && answer.kvs.is_empty() {
            return Err(Failure::Nonsense("more keys, but none of them"));
        }
        Ok(answer)
    }

    /// How many keys a list asks for at once.
    pub(crate) fn page(&self) -> i64 {
        self.page.load(Ordering::Relaxed)
    }

    /// A page was too large, or took too long.
    pub(crate) fn ask_for_less(&self) {
        self.page.store((self.page() / 8).max(1), Ordering::Relaxed);
    }

    /// A list is complete: the next one may try larger pages.
    pub(crate) fn ask_for_more(&self) {
        self.page.store((self.page() * 2).min(PAGE), Ordering::Relaxed);
    }

    pub(crate) async fn put(&self, request: PutRequest) -> Result<PutResponse, Failure> {
        // The same value under the same key: twice is once.
        self.call("/etcdserverpb.KV/Put", request, Repeat::Yes).await
    }

    pub(crate) async fn transaction(&self, request: TxnRequest) -> Result<TxnResponse, Failure> {
        self.call("/etcdserverpb.KV/Txn", request, Repeat::No).await
    }

    pub(crate) async fn grant(&self, lifetime: Duration) -> Result<LeaseGrantResponse, Failure> {
        let ttl = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX).max(1);
        // A lease too many goes away by itself.
        self.call("/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest { ttl }, Repeat::Yes).await
    }

    /// Opens a stream of watches: what `requests` asks, on a connection of the member that serves now.
    pub(crate) async fn watch(
        &self,
        requests: tokio::sync::mpsc::Receiver<WatchRequest>,
    ) -> Result<Streaming<WatchResponse>, Failure> {
        let connection = self.connection().await?;
        let mut request = Request::new(Requests(requests));
        // A member without a leader would go on saying nothing.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        connection.authorise(&mut request);
        let number = connection.number;
        let call = connection.streaming("/etcdserverpb.Watch/Watch", request);
        let status = match tokio::time::timeout(ANSWER, call).await {
            Ok(Ok(streaming)) => return Ok(streaming),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("no answer"),
        };
        self.forget(number, true);
        Err(failure(status, Repeat::Yes))
    }

    /// The connection that is in use is no good: the next call takes another member.
    pub(crate) fn abandon(&self) {
        let mut connecting = self.connecting();
        if connecting.current.take().is_some() {
            connecting.next += 1;
        }
    }

    async fn call<Q, A>(&self, path: &'static str, message: Q, repeat: Repeat) -> Result<A, Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        // Each member, and once more each where what was connected has gone since.
        let mut left = 2 * self.members.len();
        loop {
            let connection = self.connection().await?;
            let number = connection.number;
            let mut request = Request::new(message.clone());
            connection.authorise(&mut request);
            let status = match tokio::time::timeout(ANSWER, connection.unary(path, request)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("{TOO_SLOW} {} s", ANSWER.as_secs())),
            };
            left = left.saturating_sub(1);
            if login_ran_out(&status) && left > 0 {
                self.forget(number, false);
                continue;
            }
            if !is_about_the_member(&status) {
                return Err(Failure::Refused(status));
            }
            self.forget(number, true);
            let again = repeat == Repeat::Yes || never_sent(&status);
            // Whoever has waited a whole answer's time for one member does not wait for all of them.
            if !again || left == 0 || status.code() == Code::DeadlineExceeded {
                return Err(failure(status, repeat));
            }
        }
    }

    /// The connection in use, or a new one to the first member that lets us in.
    async fn connection(&self) -> Result<Connection, Failure> {
        let first = {
            let connecting = self.connecting();
            if let Some(connection) = &connecting.current {
                return Ok(connection.clone());
            }
            connecting.next
        };
        let mut reasons = Vec::new();
        for offset in 0..self.members.len() {
            let index = first.wrapping_add(offset) % self.members.len();
            let member = &self.members[index];
            match self.connect(&member.endpoint).await {
                Ok((channel, token)) => {
                    let mut connecting = self.connecting();
                    connecting.connections += 1;
                    let connection = Connection { channel, token, number: connecting.connections };
                    connecting.next = index;
                    connecting.current = Some(connection.clone());
                    return Ok(connection);
                }
                Err(Failure::Unreachable(reason)) => reasons.push(format!("{}: {reason}", member.address)),
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::Unreachable(reasons.join("; ")))
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<(Channel, Option<MetadataValue<Ascii>>), Failure> {
        let connected = tokio::time::timeout(CONNECT, endpoint.connect()).await;
        let no_answer = || Failure::Unreachable(format!("no answer within {} s", CONNECT.as_secs()));
        let channel =
            connected.map_err(|_| no_answer())?.map_err(|error| Failure::Unreachable(innermost(&error)))?;
        let Some((name, password)) = &self.login else { return Ok((channel, None)) };
        let connection = Connection { channel: channel.clone(), token: None, number: 0 };
        let request = AuthenticateRequest { name: name.clone(), password: password.clone() };
        let call = connection.unary("/etcdserverpb.Auth/Authenticate", Request::new(request));
        let answer: AuthenticateResponse = match tokio::time::timeout(ANSWER, call).await {
            Ok(Ok(answer)) => answer,
            // As etcd's own client: a password that isn't needed does no harm.
            Ok(Err(status)) if status.message().contains("authentication is not enabled") => {
                return Ok((channel, None));
            }
            Ok(Err(status)) if is_about_the_member(&status) => {
                return Err(Failure::Unreachable(status.message().to_owned()));
            }
            Ok(Err(status)) => return Err(Failure::Refused(status)),
            Err(_) => return Err(no_answer()),
        };
        let token = answer.token.parse().map_err(|_| {
            Failure::Refused(Status::internal("the token of the login isn't fit for a header"))
        })?;
        Ok((channel, Some(token)))
    }

    fn forget(&self, number: u64, move_on: bool) {
        let mut connecting = self.connecting();
        if connecting.current.as_ref().is_some_and(|connection| connection.number == number) {
            connecting.current = None;
            connecting.next += usize::from(move_on);
        }
    }

    fn connecting(&self) -> std::sync::MutexGuard<'_, Connecting> {
        self.connecting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn authorise<T>(&self, request: &mut Request<T>) {
        if let Some(token) = &self.token {
            request.metadata_mut().insert(TOKEN, token.clone());
        }
    }

    fn grpc(&self) -> Grpc<Channel> {
        Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    async fn unary<Q, A>(&self, path: &'static str, request: Request<Q>) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc();
        ready(&mut grpc).await?;
        let codec = ProstCodec::<Q, A>::default();
        Ok(grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
    }

    async fn streaming(
        &self,
        path: &'static str,
        request: Request<Requests>,
    ) -> Result<Streaming<WatchResponse>, Status> {
        let mut grpc = self.grpc();
        ready(&mut grpc).await?;
        let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
        Ok(grpc.streaming(request, PathAndQuery::from_static(path), codec).await?.into_inner())
    }
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| {
        let mut status = Status::unavailable(innermost(&error));
        status.set_source(std::sync::Arc::new(error));
        status
    })
}

/// Our side of a stream.
struct Requests(tokio::sync::mpsc::Receiver<WatchRequest>);

impl tonic::codegen::tokio_stream::Stream for Requests {
    type Item = WatchRequest;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<WatchRequest>> {
        self.0.poll_recv(context)
    }
}

fn failure(status: Status, repeat: Repeat) -> Failure {
    let reason = match Error::source(&status) {
        Some(source) => innermost(source),
        None => status.message().to_owned(),
    };
    if repeat == Repeat::Yes || never_sent(&status) {
        Failure::Unreachable(reason)
    } else {
        Failure::Unknown(reason)
    }
}

/// Would another member, or the same one later, answer otherwise?
fn is_about_the_member(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => true,
        // What breaks in the transport has no code of etcd's.
        Code::Unknown | Code::Internal => !status.message().starts_with("etcdserver:"),
        _ => false,
    }
}

/// Did a call fail before anything was sent?
fn never_sent(status: &Status) -> bool {
    let mut source = Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// A token lasts some minutes, and not beyond a change of users.
fn login_ran_out(status: &Status) -> bool {
    status.message().contains("invalid auth token")
        || status.message().contains("revision of auth store is old")
}

/// The cause of an error: "connection refused" rather than "transport error".
fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn endpoint(address: &str, uses_tls: bool, tls: &ClientTlsConfig) -> Result<Endpoint, String> {
    let url = match address.contains("://") {
        true => address.to_owned(),
        false if uses_tls => format!("https://{address}"),
        false => format!("http://{address}"),
    };
    let bad = |error: tonic::transport::Error| {
        format!("{address:?} is no endpoint of an etcd: {}", innermost(&error))
    };
    let endpoint = Endpoint::from_shared(url.clone()).map_err(bad)?;
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_ANSWER)
        .keep_alive_while_idle(true);
    match url.split_once("://") {
        Some(("https", _)) => endpoint.tls_config(tls.clone()).map_err(bad),
        // The path of a socket stands behind the scheme, as etcd's own client has it.
        Some(("http" | "unix", _)) => Ok(endpoint),
        _ => Err(format!(
            "{address:?} is no endpoint of an etcd: it begins with none of http://, https:// and unix://"
        )),
    }
}

fn tls(settings: &EtcdSettings) -> Result<ClientTlsConfig, String> {
    let mut tls = ClientTlsConfig::new();
    tls = match &settings.ca {
        Some(ca) => tls.ca_certificate(Certificate::from_pem(ca.text()?)),
        None => tls.with_native_roots(),
    };
    if let Some((certificate, key)) = &settings.identity {
        tls = tls.identity(Identity::from_pem(certificate.text()?, key.text()?));
    }
    Ok(tls)
}

impl Pem {
    fn text(&self) -> Result<String, String> {
        match self {
            Pem::Inline(text) => Ok(text.clone()),
            Pem::File(path) => read(path),
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{} can't be read: {error}", path.display()))
}
