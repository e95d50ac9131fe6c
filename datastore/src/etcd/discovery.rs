//! Members of an etcd that a domain's SRV records name (`etcdDiscoverySrv`; RFC 2782): `_etcd-client-ssl._tcp.DOMAIN` those
//! with TLS, `_etcd-client._tcp.DOMAIN` those without (etcd's `client/pkg/v3/srv`).

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

/// Where the system says which name servers to ask (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// How long a name server may take, and how often each is asked: what resolv.conf(5) has as defaults.
const ANSWER: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 2;
/// As many name servers as the system's own resolver asks.
const MAX_SERVERS: usize = 3;
/// The largest answer by UDP that fits any path, in bytes; a longer one is cut, and asked for by TCP.
const UDP_MAX: usize = 1232;
/// The most members that one domain may name.
const MAX_MEMBERS: usize = 100;

/// The members' endpoints, by priority; those with TLS come first.
///
/// # Errors
/// No record could be found, and why.
pub(super) fn endpoints(domain: &str) -> Result<Vec<String>, String> {
    let conf = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    discovered(domain, &servers(&conf))
}

fn discovered(domain: &str, servers: &[SocketAddr]) -> Result<Vec<String>, String> {
    let mut endpoints = Vec::new();
    let mut errors = Vec::new();
    for (service, scheme) in [("etcd-client-ssl", "https"), ("etcd-client", "http")] {
        match look_up(&format!("_{service}._tcp.{}", domain.trim_end_matches('.')), servers) {
            Ok(members) => endpoints.extend(members.iter().map(|member| format!("{scheme}://{member}"))),
            Err(error) => errors.push(error),
        }
    }
    if endpoints.is_empty() {
        let errors = errors.join(" and ");
        return Err(format!(
            "failed to discover etcd endpoints through SRV discovery: dns lookup errors: {errors}"
        ));
    }
    endpoints.truncate(MAX_MEMBERS);
    Ok(endpoints)
}

/// The name servers that a resolv.conf names; one on this machine where it names none.
fn servers(conf: &str) -> Vec<SocketAddr> {
    let named = conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        // An interface behind a link-local address is left to the system's routes.
        let addr = words.next()?.split('%').next()?.parse::<IpAddr>().ok()?;
        is_server.then_some(SocketAddr::new(addr, PORT))
    });
    let mut servers: Vec<SocketAddr> = named.take(MAX_SERVERS).collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    servers
}

/// `host:port` of each record, the lowest priority first.
fn look_up(name: &str, servers: &[SocketAddr]) -> Result<Vec<String>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("lookup {name}: {why}");
    let mut last = "no name server".to_owned();
    for server in std::iter::repeat_n(servers, ATTEMPTS).flatten() {
        match ask(name, *server) {
            Ok(members) if members.is_empty() => return Err(failed(&"no such host")),
            Ok(members) => return Ok(members),
            Err(error) => last = format!("{server}: {error}"),
        }
    }
    Err(failed(&last))
}

fn ask(name: &str, server: SocketAddr) -> io::Result<Vec<String>> {
    let id = id();
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(io::Error::other)?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::SRV), QCLASS::CLASS(CLASS::IN), false));
    let query = packet.build_bytes_vec().map_err(io::Error::other)?;
    let answer = by_udp(&query, server)?;
    match members(id, &answer)? {
        Some(members) => Ok(members),
        None => Ok(members(id, &by_tcp(&query, server)?)?.unwrap_or_default()),
    }
}

/// Nobody who doesn't see the question can answer it in the server's place.
fn id() -> u16 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // The lower bits of a keyed hash.
    RandomState::new().build_hasher().finish() as u16
}

fn by_udp(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER))?;
    socket.send(query)?;
    let mut answer = vec![0; UDP_MAX];
    loop {
        match socket.recv(&mut answer) {
            // As where the process was stopped and goes on.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            length => {
                answer.truncate(length?);
                return Ok(answer);
            }
        }
    }
}

/// Each message is preceded by its length (RFC 1035 §4.2.2).
fn by_tcp(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// What an answer names; nothing where it is cut.
fn members(id: u16, answer: &[u8]) -> io::Result<Option<Vec<String>>> {
    let answer = Packet::parse(answer).map_err(io::Error::other)?;
    if answer.id() != id || !answer.has_flags(PacketFlag::RESPONSE) {
        return Err(io::Error::other("an answer to another question"));
    }
    if answer.has_flags(PacketFlag::TRUNCATION) {
        return Ok(None);
    }
    match answer.rcode() {
        RCODE::NoError | RCODE::NameError => {}
        other => return Err(io::Error::other(format!("the name server says {other:?}"))),
    }
    let mut records: Vec<_> = answer
        .answers
        .iter()
        .filter_map(|record| if let RData::SRV(srv) = &record.rdata { Some(srv) } else { None })
        // The root as target: there is decidedly no such service.
        .filter(|srv| !srv.target.get_labels().is_empty())
        .collect();
    records.sort_by_key(|srv| (srv.priority, std::cmp::Reverse(srv.weight)));
    Ok(Some(records.iter().map(|srv| format!("{}:{}", srv.target, srv.port)).collect()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use simple_dns::ResourceRecord;
    use simple_dns::rdata::SRV;

    use super::*;

    /// A name server on loopback, for the questions of one lookup of both services; cuts its answers by UDP where asked.
    fn server(records: &'static [(&'static str, u16, u16, u16, &'static str)], cut: bool) -> SocketAddr {
        // Both protocols at one port.
        let (udp, tcp) = (0..100)
            .find_map(|_| {
                let udp = UdpSocket::bind("127.0.0.1:0").ok()?;
                let tcp = TcpListener::bind(udp.local_addr().ok()?).ok()?;
                Some((udp, tcp))
            })
            .expect("a free port");
        let addr = udp.local_addr().unwrap();
        let reply = move |query: &[u8], cut: bool| {
            let query = Packet::parse(query).unwrap();
            let asked = query.questions[0].qname.to_string();
            let mut reply = Packet::new_reply(query.id());
            reply.questions.clone_from(&query.questions);
            let found = records.iter().filter(|(name, ..)| *name == asked);
            for (name, priority, weight, port, target) in found {
                let target = Name::new(target).unwrap();
                let srv = SRV { priority: *priority, weight: *weight, port: *port, target };
                let name = Name::new(name).unwrap();
                reply.answers.push(ResourceRecord::new(name, CLASS::IN, 60, RData::SRV(srv)));
            }
            if reply.answers.is_empty() {
                *reply.rcode_mut() = RCODE::NameError;
            }
            if cut && !reply.answers.is_empty() {
                reply.answers.clear();
                reply.set_flags(PacketFlag::TRUNCATION);
            }
            reply.build_bytes_vec().unwrap()
        };
        std::thread::spawn(move || {
            let mut query = [0; UDP_MAX];
            while let Ok((length, from)) = udp.recv_from(&mut query) {
                udp.send_to(&reply(&query[..length], cut), from).unwrap();
            }
        });
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut query).unwrap();
                let answer = reply(&query, false);
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length[..], &answer].concat()).unwrap();
            }
        });
        addr
    }

    #[test]
    fn members_are_found_by_priority_and_those_with_tls_first() {
        const RECORDS: &[(&str, u16, u16, u16, &str)] = &[
            ("_etcd-client._tcp.example.com", 10, 0, 2379, "plain.example.com"),
            ("_etcd-client-ssl._tcp.example.com", 20, 0, 2381, "last.example.com"),
            ("_etcd-client-ssl._tcp.example.com", 10, 1, 2380, "light.example.com"),
            ("_etcd-client-ssl._tcp.example.com", 10, 9, 2379, "heavy.example.com"),
        ];
        let expected = [
            "https://heavy.example.com:2379",
            "https://light.example.com:2380",
            "https://last.example.com:2381",
            "http://plain.example.com:2379",
        ];
        for cut in [false, true] {
            assert_eq!(discovered("example.com.", &[server(RECORDS, cut)]).unwrap(), expected, "{cut}");
        }
    }

    #[test]
    fn a_domain_without_members_is_an_error_that_names_what_was_asked() {
        let error = discovered("example.org", &[server(&[], false)]).unwrap_err();
        assert_eq!(
            error,
            "failed to discover etcd endpoints through SRV discovery: dns lookup errors: lookup \
             _etcd-client-ssl._tcp.example.org: no such host and lookup _etcd-client._tcp.example.org: no such host"
        );
    }

    #[test]
    fn a_name_server_that_is_gone_is_passed_over() {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        const RECORDS: &[(&str, u16, u16, u16, &str)] =
            &[("_etcd-client._tcp.example.com", 0, 0, 2379, "a.example.com")];
        assert_eq!(
            discovered("example.com", &[gone, server(RECORDS, false)]).unwrap(),
            ["http://a.example.com:2379"]
        );
    }

    #[test]
    fn name_servers_are_those_of_the_system() {
        let conf = "# nameserver 192.0.2.9\nsearch example.com\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n\
                    nameserver nonsense\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let servers: Vec<String> = servers(conf).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[fe80::1]:53", "192.0.2.2:53"]);
        assert_eq!(super::servers("")[0].to_string(), "127.0.0.1:53");
    }

    #[test]
    fn garbage_and_answers_to_others_are_refused() {
        assert!(members(7, b"garbage").is_err());
        let other = Packet::new_reply(8).build_bytes_vec().unwrap();
        assert!(members(7, &other).is_err());
        let query = Packet::new_query(7).build_bytes_vec().unwrap();
        assert!(members(7, &query).is_err());
    }
}
