//! What can be asked for of the peers of a range, beyond what Calico's resources say of a peer.

use std::time::Duration;

use bgp::{PeerConfig, PrefixLimit, Role, SendPaths};
use model::{Family, SecretKey};

/// What is asked for; `None` and `false` are as Calico has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerOptions {
    /// How many paths a peer may hold in a family.
    pub prefix_limit: Option<PrefixLimit>,
    /// The families that sessions carry; empty is that of the peer's address alone.
    pub families: Vec<Family>,
    /// Several paths a prefix are taken (RFC 7911).
    pub receive_paths: Option<bool>,
    /// How many are sent.
    pub send_paths: Option<SendPaths>,
    /// How long the peer shall keep our routes while we restart (RFC 4724), where its BGPPeer doesn't say; zero is not at all.
    pub restart_time: Option<Duration>,
    /// And as a last resort beyond that (RFC 9494).
    pub long_lived_time: Option<Duration>,
    /// Routes outlive a session that ends by NOTIFICATION, too (RFC 8538).
    pub survive_notification: bool,
    /// Messages of up to 65535 octets (RFC 8654).
    pub extended_messages: Option<bool>,
    /// What we are to the peers (RFC 9234).
    pub role: Option<Role>,
    /// Those that say nothing of their role are refused.
    pub strict_role: bool,
    /// Nothing passes to or from another AS without a BGPFilter (RFC 8212).
    pub policy_required: bool,
    /// BLACKHOLE is heeded (RFC 7999).
    pub blackhole: bool,
    /// The bandwidth of the link to them, in bytes a second, for routes that tell none.
    pub link_bandwidth: Option<u64>,
    /// IPv4 routes with IPv6 next hops (RFC 8950).
    pub v4_over_v6: bool,
    /// Are they watched by BFD? `None` is as their BGPPeers say.
    pub bfd: Option<bool>,
    /// Hold time; `None` is BIRD's 240 s.
    pub hold_time: Option<Duration>,
    /// Interval of keepalives, where the BGPPeer doesn't say.
    pub keepalive_time: Option<Duration>,
    /// Hops that they are away at most (RFC 5082), where the BGPPeer doesn't say.
    pub ttl_security: Option<u8>,
    /// Where the password of their TCP connections stands (RFC 2385), where the BGPPeer names none. Whoever connects from the
    /// range must have it.
    pub password: Option<SecretKey>,
}

impl PeerOptions {
    /// The families of a session with a peer at an address of this one.
    pub(crate) fn families(&self, own: Family) -> Vec<Family> {
        if !self.families.is_empty() {
            return self.families.clone();
        }
        match own {
            Family::V6 if self.v4_over_v6 => Family::ALL.to_vec(),
            own => vec![own],
        }
    }

    /// Puts in what is asked for.
    pub(crate) fn apply(&self, config: &mut PeerConfig) {
        config.prefix_limit = self.prefix_limit;
        config.add_path = self.receive_paths.unwrap_or(config.add_path);
        config.send_paths = self.send_paths.unwrap_or(config.send_paths);
        config.long_lived_time = self.long_lived_time.unwrap_or(config.long_lived_time);
        config.survive_notification = self.survive_notification;
        config.extended_messages = self.extended_messages.unwrap_or(config.extended_messages);
        (config.role, config.strict_role) = (self.role, self.strict_role);
        config.policy_required = self.policy_required;
        config.blackhole = self.blackhole;
        config.link_bandwidth = self.link_bandwidth;
        config.v4_over_v6 = self.v4_over_v6;
        config.hold_time = self.hold_time.unwrap_or(config.hold_time);
    }
}
