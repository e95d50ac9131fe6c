//! What guards a TCP session and no safe crate offers: MD5 signatures (RFC 2385), a least TTL (GTSM, RFC 5082), and the TTL
//! that a connection began with.
//!
//! It is here because this is the room of unsafe code; it has nothing else to do with AF_XDP.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use crate::abi::Plain;
use crate::syscall::{get_option, set_option};

/// Most bytes of a key (`TCP_MD5SIG_MAXKEYLEN`, include/uapi/linux/tcp.h).
pub const TCP_KEY_MAX: usize = 80;

/// The prefix length counts (`TCP_MD5SIG_FLAG_PREFIX`, the same file); `libc` hasn't got it.
const FLAG_PREFIX: u8 = 1;
/// `struct sockaddr_storage`, as far as it is read.
const ADDRESS_LEN: usize = 128;
/// Room for the headers of a SYN: without IPv6 extension headers they are at most 120 bytes.
const SYN_LEN: usize = 256;
/// Where an IPv4 header has its TTL, and an IPv6 header its hop limit.
const TTL_AT: [usize; 2] = [8, 7];

/// `struct tcp_md5sig` (include/uapi/linux/tcp.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct Md5Signature {
    /// A `sockaddr_in` or `sockaddr_in6`, then zeroes.
    address: [u8; ADDRESS_LEN],
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    ifindex: i32,
    key: [u8; TCP_KEY_MAX],
}

impl Default for Md5Signature {
    fn default() -> Self {
        Md5Signature {
            address: [0; ADDRESS_LEN],
            flags: 0,
            prefix_len: 0,
            key_len: 0,
            ifindex: 0,
            key: [0; TCP_KEY_MAX],
        }
    }
}

// SAFETY: repr(C) integers and bytes without padding (128+1+1+2+4+80), any bits of which are valid.
unsafe impl Plain for Md5Signature {}

/// Segments to and from these addresses carry an MD5 signature made with this key; an empty key ends that.
///
/// On a listening socket it is for connections that come; on one that is to connect it has to be set before. A
/// connection that stands keeps the key that it has.
///
/// # Errors
/// `InvalidInput` for a key above [`TCP_KEY_MAX`] bytes; `NotFound` where a key is to end that isn't there; what else
/// the kernel says, such as `ENOPROTOOPT` from one without MD5 signatures.
pub fn set_tcp_md5_key(socket: BorrowedFd<'_>, peers: IpAddr, prefix_len: u8, key: &[u8]) -> io::Result<()> {
    let key_len = u16::try_from(key.len()).ok().filter(|_| key.len() <= TCP_KEY_MAX);
    let mut signature = Md5Signature {
        address: socket_address(peers),
        flags: FLAG_PREFIX,
        prefix_len,
        key_len: key_len.ok_or(io::ErrorKind::InvalidInput)?,
        ..Md5Signature::default()
    };
    signature.key[..key.len()].copy_from_slice(key);
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG_EXT, &signature)
}

/// Segments with a lower TTL, or hop limit, are dropped; 0 takes all.
///
/// # Errors
/// What the kernel says, such as `ENOPROTOOPT` for a socket of the other family.
pub fn set_min_ttl(socket: BorrowedFd<'_>, ipv6: bool, ttl: u8) -> io::Result<()> {
    let (level, name) = match ipv6 {
        false => (libc::IPPROTO_IP, libc::IP_MINTTL),
        true => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
    };
    set_option(socket, level, name, &i32::from(ttl))
}

/// The listening socket keeps the headers of the SYN that each connection began with, for [`take_syn_ttl`].
///
/// # Errors
/// What the kernel says.
pub fn keep_syns(listener: BorrowedFd<'_>) -> io::Result<()> {
    set_option(listener, libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, &1_i32)
}

/// The TTL, or hop limit, that an accepted connection's SYN came with; the kernel tells it once.
///
/// `None` where there is none to tell: it has been asked for before, the listening socket kept none, or the kernel was
/// flooded and answered with a SYN cookie.
///
/// # Errors
/// What the kernel says, such as `EINVAL` for a SYN with very many IPv6 extension headers.
pub fn take_syn_ttl(accepted: BorrowedFd<'_>) -> io::Result<Option<u8>> {
    let (headers, len) = get_option::<Headers>(accepted, libc::IPPROTO_TCP, libc::TCP_SAVED_SYN)?;
    let headers = &headers.0[..len.min(SYN_LEN)];
    let at = match headers.first().map(|first| first >> 4) {
        Some(4) => TTL_AT[0],
        Some(6) => TTL_AT[1],
        _ => return Ok(None),
    };
    Ok(headers.get(at).copied())
}

/// The headers of a packet.
#[repr(C)]
#[derive(Clone, Copy)]
struct Headers([u8; SYN_LEN]);

impl Default for Headers {
    fn default() -> Self {
        Headers([0; SYN_LEN])
    }
}

// SAFETY: repr(C) bytes without padding, any bits of which are valid.
unsafe impl Plain for Headers {}

/// Family and address at the places that `sockaddr_in` and `sockaddr_in6` have for them; the port counts for nothing.
fn socket_address(address: IpAddr) -> [u8; ADDRESS_LEN] {
    let mut bytes = [0; ADDRESS_LEN];
    let (family, start) = match address {
        IpAddr::V4(_) => (libc::AF_INET, 4),
        IpAddr::V6(_) => (libc::AF_INET6, 8),
    };
    bytes[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
    match address {
        IpAddr::V4(address) => bytes[start..start + 4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes[start..start + 16].copy_from_slice(&address.octets()),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// A client's socket that is not connected yet.
    fn client(address: SocketAddr) -> Socket {
        Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap()
    }

    /// For an answer: longer than any machine is busy with something else.
    const PATIENCE: Duration = Duration::from_secs(60);
    /// For no answer: whoever drops our segments never gives one. Longer than one over loopback takes as a rule.
    const A_MOMENT: Duration = Duration::from_millis(500);

    /// Connects it, unless nobody answers for so long.
    fn connect(socket: Socket, address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
        socket.connect_timeout(&address.into(), patience)?;
        Ok(socket.into())
    }

    /// Does a byte cross between a server and a client of these keys, the server's for addresses of this length?
    fn talk(
        server_address: &str,
        prefix_len: u8,
        server_key: &[u8],
        client_key: &[u8],
        patience: Duration,
    ) -> bool {
        let listener = TcpListener::bind(server_address).unwrap();
        let address = listener.local_addr().unwrap();
        set_tcp_md5_key(listener.as_fd(), address.ip(), prefix_len, server_key).unwrap();
        let socket = client(address);
        let host = if address.is_ipv4() { 32 } else { 128 };
        if !client_key.is_empty() {
            set_tcp_md5_key(socket.as_fd(), address.ip(), host, client_key).unwrap();
        }
        let Ok(mut near) = connect(socket, address, patience) else { return false };
        let (mut far, _) = listener.accept().unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        near.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).is_ok()
    }

    #[test]
    fn equal_keys_talk_and_others_do_not() {
        for (server, host) in [("127.0.0.1:0", 32), ("[::1]:0", 128)] {
            assert!(talk(server, host, b"secret", b"secret", PATIENCE));
            assert!(!talk(server, host, b"secret", b"other", A_MOMENT));
            assert!(!talk(server, host, b"secret", b"", A_MOMENT));
        }
    }

    #[test]
    fn a_key_may_be_for_a_whole_prefix() {
        assert!(talk("127.0.0.9:0", 8, b"secret", b"secret", PATIENCE));
        assert!(!talk("127.0.0.9:0", 8, b"secret", b"other", A_MOMENT));
    }

    #[test]
    fn a_key_that_is_too_long_or_unknown_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = IpAddr::from([127, 0, 0, 1]);
        let long = set_tcp_md5_key(listener.as_fd(), peer, 32, &[b'a'; TCP_KEY_MAX + 1]);
        assert_eq!(long.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(set_tcp_md5_key(listener.as_fd(), peer, 32, &[b'a'; TCP_KEY_MAX]).is_ok());
        assert!(set_tcp_md5_key(listener.as_fd(), peer, 32, b"").is_ok());
        let unknown = set_tcp_md5_key(listener.as_fd(), peer, 32, b"");
        assert_eq!(unknown.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_connection_tells_once_how_far_its_syn_has_come() {
        for server in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(server).unwrap();
            let address = listener.local_addr().unwrap();
            let accept = || {
                let near = client(address);
                match address.is_ipv4() {
                    true => near.set_ttl_v4(7).unwrap(),
                    false => near.set_unicast_hops_v6(7).unwrap(),
                }
                let near = connect(near, address, PATIENCE).unwrap();
                (near, listener.accept().unwrap().0)
            };
            let (_near, far) = accept();
            assert_eq!(take_syn_ttl(far.as_fd()).unwrap(), None, "nobody has asked for it");
            keep_syns(listener.as_fd()).unwrap();
            let (_near, far) = accept();
            assert_eq!(take_syn_ttl(far.as_fd()).unwrap(), Some(7));
            assert_eq!(take_syn_ttl(far.as_fd()).unwrap(), None);
        }
    }

    #[test]
    fn what_comes_from_too_far_is_dropped() {
        for server in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(server).unwrap();
            let ipv6 = server.starts_with('[');
            // Linux sends with a TTL of 64 where nothing else is asked.
            set_min_ttl(listener.as_fd(), ipv6, 255).unwrap();
            let address = listener.local_addr().unwrap();
            assert!(
                connect(client(address), address, A_MOMENT).is_err(),
                "64 hops away, as far as TTL tells"
            );
            set_min_ttl(listener.as_fd(), ipv6, 64).unwrap();
            assert!(connect(client(address), address, PATIENCE).is_ok());
        }
    }
}
