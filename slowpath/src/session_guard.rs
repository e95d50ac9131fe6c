//! What guards BGP's TCP connections: keys and least TTLs, on listening sockets, new connections and accepted ones.
//!
//! A listening socket serves all peers, so it has a key a peer, or one for a range of them (RFC 2385), and sends with the
//! largest TTL, which no peer minds. A least TTL (RFC 5082) is one peer's: once it is known who has connected, the TTL of its
//! SYN says whether it has come from near, before anything is read that it sent, and the connection drops what comes from
//! farther from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use bgp::{Guard, Password, PeerId};
use model::{Family, Prefix};
use socket2::SockRef;
use tracing::warn;

use crate::former_settings::FormerSettings;
use crate::sysctl;

/// Socket options that no safe crate offers. `tortie`, which knows `afxdp`, implements it.
pub trait SocketOptions: Send + Sync {
    /// Segments to and from these addresses carry an MD5 signature made with this key, of at most [`Password::MAX`] bytes; an
    /// empty key ends that.
    ///
    /// # Errors
    /// What the kernel says.
    fn set_tcp_key(&self, socket: BorrowedFd<'_>, peers: Prefix, key: &[u8]) -> io::Result<()>;

    /// Segments with a lower TTL are dropped.
    ///
    /// # Errors
    /// What the kernel says.
    fn set_min_ttl(&self, socket: BorrowedFd<'_>, family: Family, ttl: u8) -> io::Result<()>;

    /// The listening socket keeps what [`SocketOptions::take_syn_ttl`] tells.
    ///
    /// # Errors
    /// What the kernel says.
    fn keep_syns(&self, listener: BorrowedFd<'_>) -> io::Result<()>;

    /// The TTL that an accepted connection's SYN came with, told once; `None` where nobody kept it.
    ///
    /// # Errors
    /// What the kernel says.
    fn take_syn_ttl(&self, accepted: BorrowedFd<'_>) -> io::Result<Option<u8>>;
}

/// The guards of all peers, and the options that make them so.
pub struct SessionGuards {
    options: Arc<dyn SocketOptions>,
    peers: BTreeMap<PeerId, (IpAddr, Guard)>,
    /// Whose of `peers` have a password, by address.
    with_password: BTreeMap<IpAddr, BTreeSet<PeerId>>,
    /// Passwords of whole ranges.
    ranges: BTreeMap<Prefix, Password>,
    /// Keys that listening sockets have.
    listening: BTreeMap<Prefix, Password>,
    /// Whose key the kernel has refused to change: which one is in force there isn't known.
    unsettled: BTreeSet<Prefix>,
    former: FormerSettings,
}

impl SessionGuards {
    /// No peers yet. The kernel's option memory is noted in `former` before it is changed.
    pub fn new(options: Arc<dyn SocketOptions>, former: FormerSettings) -> SessionGuards {
        SessionGuards {
            options,
            peers: BTreeMap::new(),
            with_password: BTreeMap::new(),
            ranges: BTreeMap::new(),
            listening: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            former,
        }
    }

    /// The peer is at this address now and guarded so; these sockets listen.
    pub fn put<'a>(
        &mut self,
        peer: PeerId,
        address: IpAddr,
        guard: &Guard,
        listeners: impl Iterator<Item = &'a tokio::net::TcpListener> + Clone,
    ) {
        let before = self.forget(peer);
        self.peers.insert(peer, (address, guard.clone()));
        if guard.password.is_some() {
            self.with_password.entry(address).or_default().insert(peer);
        }
        let changed = BTreeSet::from_iter(before.into_iter().chain([address]).map(Prefix::host));
        self.arm_these(changed, listeners);
    }

    /// Whoever connects from these ranges must have their passwords, but for peers that have one of their own; these sockets
    /// listen.
    pub fn put_ranges<'a>(
        &mut self,
        passwords: BTreeMap<Prefix, Password>,
        listeners: impl Iterator<Item = &'a tokio::net::TcpListener> + Clone,
    ) {
        if passwords != self.ranges {
            let before = std::mem::replace(&mut self.ranges, passwords);
            self.arm_all(before.into_keys(), listeners);
        }
    }

    /// The peer is none any more.
    pub fn remove<'a>(
        &mut self,
        peer: PeerId,
        listeners: impl Iterator<Item = &'a tokio::net::TcpListener> + Clone,
    ) {
        if let Some(address) = self.forget(peer) {
            self.arm_these(BTreeSet::from([Prefix::host(address)]), listeners);
        }
    }

    /// Gives the address where it was.
    fn forget(&mut self, peer: PeerId) -> Option<IpAddr> {
        let (address, _) = self.peers.remove(&peer)?;
        if let Some(there) = self.with_password.get_mut(&address) {
            there.remove(&peer);
            if there.is_empty() {
                self.with_password.remove(&address);
            }
        }
        Some(address)
    }

    /// The listening sockets are new, and have no keys yet.
    pub fn listen_anew<'a>(&mut self, listeners: impl Iterator<Item = &'a tokio::net::TcpListener> + Clone) {
        for listener in listeners.clone() {
            if let Err(error) = self.options.keep_syns(listener.as_fd()) {
                warn!(%error, "the kernel keeps no SYNs; peers with ttlSecurity can't connect to us");
            }
        }
        self.listening.clear();
        self.unsettled.clear();
        self.arm_all(std::iter::empty(), listeners);
    }

    /// Gives listening sockets every key that they should have: those of ranges first, which spare others.
    fn arm_all<'a>(
        &mut self,
        former_ranges: impl Iterator<Item = Prefix>,
        listeners: impl Iterator<Item = &'a tokio::net::TcpListener> + Clone,
    ) {
        let ranges: BTreeSet<Prefix> = former_ranges.chain(self.ranges.keys().copied()).collect();
        let hosts: Vec<Prefix> = self.with_password.keys().copied().map(Prefix::host).collect();
        for peers in ranges.into_iter().chain(hosts) {
            self.arm(peers, listeners.clone());
        }
    }

    /// Gives listening sockets the keys for these, and for those where that came to nothing before.
    fn arm_these<'a>(
        &mut self,
        mut changed: BTreeSet<Prefix>,
        listeners: impl Iterator<Item = &'a tokio::net::TcpListener> + Clone,
    ) {
        changed.extend(&self.unsettled);
        for peers in changed {
            self.arm(peers, listeners.clone());
        }
    }

    /// Before it connects to a peer. A peer that isn't known is refused: it may need a key.
    pub fn guard_connecting(&self, peer: PeerId, socket: &impl AsFd) -> io::Result<()> {
        let (address, guard) = self.peers.get(&peer).ok_or(io::ErrorKind::NotFound)?;
        if let Some(password) = &guard.password {
            self.options.set_tcp_key(socket.as_fd(), Prefix::host(*address), password.bytes())?;
        }
        self.guard_connection(peer, socket)
    }

    /// Has somebody who has connected come from within these hops? Where the kernel doesn't know, it has not: under a flood
    /// of SYNs it can't say, and we connect to the peer as well.
    pub fn has_come_from_near(&self, socket: &impl AsFd, ttl_security: Option<u8>) -> bool {
        let Some(least) = (Guard { password: None, ttl_security }).min_ttl() else { return true };
        self.options.take_syn_ttl(socket.as_fd()).is_ok_and(|ttl| ttl.is_some_and(|ttl| ttl >= least))
    }

    /// A connection that the peer has opened. Without its key, where it should have one, it is refused: the kernel
    /// would have let anybody in.
    pub fn guard_accepted(&self, peer: PeerId, socket: &impl AsFd) -> io::Result<()> {
        if let Some((address, Guard { password: Some(password), .. })) = self.peers.get(&peer)
            && self.key_for(Prefix::host(*address)) != Some(password)
        {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.guard_connection(peer, socket)
    }

    /// How far a connection's segments may come and go.
    fn guard_connection(&self, peer: PeerId, socket: &impl AsFd) -> io::Result<()> {
        let Some((address, guard)) = self.peers.get(&peer) else { return Ok(()) };
        let Some(min_ttl) = guard.min_ttl() else { return Ok(()) };
        let family = Family::of(*address);
        send_furthest(socket, family)?;
        self.options.set_min_ttl(socket.as_fd(), family, min_ttl)
    }

    /// What may keep a peer from answering, besides that it isn't there.
    pub fn hint(&self, peer: PeerId) -> Option<&'static str> {
        let (_, guard) = self.peers.get(&peer)?;
        match (&guard.password, guard.ttl_security) {
            (Some(_), None) => Some("is the password the same at both ends?"),
            (Some(_), Some(_)) => {
                Some("is the password the same at both ends, and is the peer within the hops of ttlSecurity?")
            }
            (None, Some(_)) => {
                Some("is the peer within the hops of ttlSecurity, and does it send with a TTL of 255?")
            }
            (None, None) => None,
        }
    }

    /// The key that listening sockets ask of who connects from here: the kernel takes the longest prefix.
    fn key_for(&self, peers: Prefix) -> Option<&Password> {
        let of_range = || {
            let around = self.ranges.keys().filter(|range| range.covers(peers));
            let keys = around.filter_map(|range| Some((range, self.listening.get(range)?)));
            keys.max_by_key(|(range, _)| range.len()).map(|(_, password)| password)
        };
        self.listening.get(&peers).or_else(of_range)
    }

    /// Gives listening sockets the key for who connects from here, if they should have one and don't.
    fn arm<'a>(&mut self, peers: Prefix, listeners: impl Iterator<Item = &'a tokio::net::TcpListener>) {
        // Of two peers at one address the first is who connects, whichever port the other has.
        let there = self.with_password.get(&peers.addr()).filter(|_| peers.is_host());
        let first = there.and_then(|there| there.first()).and_then(|peer| self.peers.get(peer));
        let of_peer = first.and_then(|(_, guard)| guard.password.clone());
        let wanted = of_peer.or_else(|| self.ranges.get(&peers).cloned());
        let has = self.listening.get(&peers);
        // What the range's key does needs no other: keys take memory of the socket's, and time of each connection's.
        let is_ranges = has.is_none() && wanted.is_some() && self.key_for(peers) == wanted.as_ref();
        let is_unsettled = self.unsettled.contains(&peers);
        if (has == wanted.as_ref() || is_ranges) && !is_unsettled {
            return;
        }
        let key = wanted.as_ref().map_or(&[][..], Password::bytes);
        let of_family = |listener: &&tokio::net::TcpListener| {
            listener.local_addr().is_ok_and(|address| Family::of(address.ip()) == peers.family())
        };
        let mut done = true;
        for listener in listeners.filter(of_family) {
            match self.set_key(listener.as_fd(), peers, key) {
                // There is none that is to end.
                Err(error) if key.is_empty() && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    warn!(%peers, %error, "the kernel doesn't take a TCP MD5 key; the peer can't connect to us");
                    done = false;
                }
                Ok(()) => {}
            }
        }
        if done {
            self.unsettled.remove(&peers);
        } else {
            self.unsettled.insert(peers);
        }
        match wanted.filter(|_| done) {
            Some(password) => drop(self.listening.insert(peers, password)),
            None => drop(self.listening.remove(&peers)),
        }
    }

    /// Sets a key on a listening socket, which has room for few unless it is given more.
    fn set_key(&self, listener: BorrowedFd<'_>, peers: Prefix, key: &[u8]) -> io::Result<()> {
        loop {
            match self.options.set_tcp_key(listener, peers, key) {
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                    self.former.note_also(sysctl::OPTION_MEMORY.as_ref());
                    match sysctl::double_option_memory() {
                        Ok(true) => {}
                        Ok(false) => return Err(error),
                        Err(refused) => return Err(io::Error::new(error.kind(), refused)),
                    }
                }
                outcome => return outcome,
            }
        }
    }
}

/// What leaves by this socket begins with a TTL of 255. On a listening socket that is for the answer to a SYN, before it is
/// known who asks.
pub fn send_furthest(socket: &impl AsFd, family: Family) -> io::Result<()> {
    let socket = SockRef::from(socket);
    match family {
        Family::V4 => socket.set_ttl_v4(u8::MAX.into()),
        Family::V6 => socket.set_unicast_hops_v6(u8::MAX.into()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A record of settings that nobody changes.
    pub(crate) fn nowhere() -> FormerSettings {
        FormerSettings::recorded_at("/nonexistent/former-settings".into())
    }

    /// What was asked of sockets, in words; nothing is done.
    #[derive(Default)]
    pub(crate) struct Noted(pub(crate) Mutex<Vec<String>>);

    impl Noted {
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl SocketOptions for Noted {
        fn set_tcp_key(&self, _: BorrowedFd<'_>, peers: Prefix, key: &[u8]) -> io::Result<()> {
            self.0.lock().unwrap().push(format!("{peers} {}", String::from_utf8_lossy(key)));
            Ok(())
        }

        fn set_min_ttl(&self, _: BorrowedFd<'_>, family: Family, ttl: u8) -> io::Result<()> {
            self.0.lock().unwrap().push(format!("{family} {ttl}"));
            Ok(())
        }

        fn keep_syns(&self, _: BorrowedFd<'_>) -> io::Result<()> {
            Ok(())
        }

        /// Everybody is a hop away.
        fn take_syn_ttl(&self, _: BorrowedFd<'_>) -> io::Result<Option<u8>> {
            Ok(Some(254))
        }
    }

    fn guard(password: &str, ttl_security: Option<u8>) -> Guard {
        Guard { password: Password::new(password.as_bytes()), ttl_security }
    }

    #[tokio::test]
    async fn listening_sockets_have_the_keys_of_the_peers_that_there_are() {
        let noted = Arc::new(Noted::default());
        let mut guards = SessionGuards::new(Arc::<Noted>::clone(&noted), nowhere());
        let listeners = [
            tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
            tokio::net::TcpListener::bind("[::1]:0").await.unwrap(),
        ];
        let (one, two) = ("10.0.0.1".parse().unwrap(), "fd00::2".parse().unwrap());
        guards.put(PeerId(1), one, &guard("a", None), listeners.iter());
        assert_eq!(noted.take(), ["10.0.0.1/32 a"]);
        guards.put(PeerId(2), two, &guard("b", None), listeners.iter());
        assert_eq!(noted.take(), ["fd00::2/128 b"], "others' keys are left alone");
        guards.put(PeerId(1), one, &guard("c", None), listeners.iter());
        assert_eq!(noted.take(), ["10.0.0.1/32 c"]);
        guards.put(PeerId(1), one, &guard("c", None), listeners.iter());
        assert!(noted.take().is_empty());
        guards.listen_anew(listeners.iter());
        assert_eq!(noted.take(), ["10.0.0.1/32 c", "fd00::2/128 b"]);
        guards.put(PeerId(1), one, &guard("", None), listeners.iter());
        guards.remove(PeerId(2), listeners.iter());
        assert_eq!(noted.take(), ["10.0.0.1/32 ", "fd00::2/128 "], "an empty key ends it");
    }

    #[tokio::test]
    async fn a_range_has_one_key_and_only_peers_with_another_have_their_own() {
        let noted = Arc::new(Noted::default());
        let mut guards = SessionGuards::new(Arc::<Noted>::clone(&noted), nowhere());
        let listeners = [tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let passwords = |texts: &[(&str, &str)]| -> BTreeMap<Prefix, Password> {
            let password = |text: &str| Password::new(text.as_bytes()).unwrap();
            texts.iter().map(|(range, text)| (range.parse().unwrap(), password(text))).collect()
        };
        let (one, two) = ("10.1.0.1".parse().unwrap(), "10.1.0.2".parse().unwrap());
        guards.put_ranges(passwords(&[("10.1.0.0/16", "a")]), listeners.iter());
        assert_eq!(noted.take(), ["10.1.0.0/16 a"]);
        guards.put(PeerId(1), one, &guard("a", None), listeners.iter());
        guards.put(PeerId(2), two, &guard("b", None), listeners.iter());
        assert_eq!(noted.take(), ["10.1.0.2/32 b"]);
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        guards.guard_accepted(PeerId(1), &socket).unwrap();
        guards.guard_accepted(PeerId(2), &socket).unwrap();
        guards.put_ranges(passwords(&[("10.1.0.0/16", "c")]), listeners.iter());
        assert_eq!(noted.take(), ["10.1.0.0/16 c", "10.1.0.1/32 a"], "a peer keeps what it was given");
        guards.put(PeerId(1), one, &guard("c", None), listeners.iter());
        assert_eq!(noted.take(), ["10.1.0.1/32 c"]);
        guards.put_ranges(passwords(&[]), listeners.iter());
        assert_eq!(noted.take(), ["10.1.0.0/16 "]);
        guards.guard_accepted(PeerId(1), &socket).unwrap();
    }

    /// A kernel with room for so many keys in the option memory that it has.
    struct Scarce(Mutex<usize>);

    impl SocketOptions for Scarce {
        fn set_tcp_key(&self, _: BorrowedFd<'_>, _: Prefix, _: &[u8]) -> io::Result<()> {
            let room = sysctl::read(sysctl::OPTION_MEMORY.as_ref()).unwrap().parse::<usize>().unwrap() / 136;
            let mut keys = self.0.lock().unwrap();
            if *keys >= room {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            *keys += 1;
            Ok(())
        }

        fn set_min_ttl(&self, _: BorrowedFd<'_>, _: Family, _: u8) -> io::Result<()> {
            Ok(())
        }

        fn keep_syns(&self, _: BorrowedFd<'_>) -> io::Result<()> {
            Ok(())
        }

        fn take_syn_ttl(&self, _: BorrowedFd<'_>) -> io::Result<Option<u8>> {
            Ok(None)
        }
    }

    #[test]
    fn thousands_of_peers_with_passwords_are_given_room_for_their_keys() {
        crate::testing::in_namespace_async(|| async {
            const MANY: u32 = 4096;
            if sysctl::read(sysctl::OPTION_MEMORY.as_ref()).is_none() {
                return println!("skipped: namespaces have no option memory of their own before Linux 6.8");
            }
            let folder = tempfile::tempdir().unwrap();
            let former = FormerSettings::recorded_at(folder.path().join("former-settings"));
            let before = sysctl::read(sysctl::OPTION_MEMORY.as_ref());
            let mut guards = SessionGuards::new(Arc::new(Scarce(Mutex::default())), former.clone());
            let listeners = [tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap()];
            for number in 0..MANY {
                let address = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
                guards.put(PeerId(number), address, &guard("a", None), listeners.iter());
            }
            assert_eq!(guards.listening.len(), MANY as usize);
            assert_ne!(sysctl::read(sysctl::OPTION_MEMORY.as_ref()), before);
            former.restore().unwrap();
            assert_eq!(sysctl::read(sysctl::OPTION_MEMORY.as_ref()), before);
        });
    }

    /// A kernel that keeps keys, and refuses to change any while it is told to.
    #[derive(Default)]
    struct Stubborn(Mutex<(bool, BTreeMap<Prefix, Vec<u8>>)>);

    impl SocketOptions for Stubborn {
        fn set_tcp_key(&self, _: BorrowedFd<'_>, peers: Prefix, key: &[u8]) -> io::Result<()> {
            let (refuses, keys) = &mut *self.0.lock().unwrap();
            match (*refuses, key) {
                (true, _) => Err(io::ErrorKind::PermissionDenied.into()),
                (false, []) => keys.remove(&peers).map(drop).ok_or(io::ErrorKind::NotFound.into()),
                (false, key) => {
                    keys.insert(peers, key.to_vec());
                    Ok(())
                }
            }
        }

        fn set_min_ttl(&self, _: BorrowedFd<'_>, _: Family, _: u8) -> io::Result<()> {
            Ok(())
        }

        fn keep_syns(&self, _: BorrowedFd<'_>) -> io::Result<()> {
            Ok(())
        }

        fn take_syn_ttl(&self, _: BorrowedFd<'_>) -> io::Result<Option<u8>> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn a_key_that_could_not_be_changed_is_changed_later() {
        let kernel = Arc::new(Stubborn::default());
        let mut guards = SessionGuards::new(Arc::<Stubborn>::clone(&kernel), nowhere());
        let listeners = [tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let keys = || kernel.0.lock().unwrap().1.len();
        let [one, two] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        guards.put(PeerId(1), one, &guard("a", None), listeners.iter());
        kernel.0.lock().unwrap().0 = true;
        guards.put(PeerId(1), one, &guard("b", None), listeners.iter());
        assert!(guards.guard_accepted(PeerId(1), &socket).is_err(), "it may have come with the former key");
        guards.remove(PeerId(1), listeners.iter());
        assert_eq!(keys(), 1, "it stays, and would keep out who comes without");
        kernel.0.lock().unwrap().0 = false;
        guards.put(PeerId(2), two, &guard("", None), listeners.iter());
        assert_eq!(keys(), 0);
        guards.put(PeerId(1), one, &guard("", None), listeners.iter());
        guards.guard_accepted(PeerId(1), &socket).unwrap();
    }

    #[tokio::test]
    async fn a_connection_has_the_key_before_it_begins_and_comes_from_near() {
        let noted = Arc::new(Noted::default());
        let mut guards = SessionGuards::new(Arc::<Noted>::clone(&noted), nowhere());
        let peer = "10.0.0.1".parse().unwrap();
        guards.put(PeerId(1), peer, &guard("a", Some(2)), [].iter());
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        guards.guard_connecting(PeerId(1), &socket).unwrap();
        assert_eq!(noted.take(), ["10.0.0.1/32 a", "IPv4 254"]);
        assert_eq!(SockRef::from(&socket).ttl_v4().unwrap(), 255);
        assert!(guards.hint(PeerId(1)).unwrap().contains("password"));
        assert!(guards.guard_connecting(PeerId(2), &socket).is_err(), "nobody knows whether it needs a key");
        let near = [None, Some(1), Some(2)].map(|hops| guards.has_come_from_near(&socket, hops));
        assert_eq!(near, [true, false, true], "by the SYN, a hop away");
    }
}
