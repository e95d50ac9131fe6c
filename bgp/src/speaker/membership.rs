//! Which group of peers a peer is told with.

use model::Family;

use crate::export::ExportPolicy;
use crate::path::Slot;
use crate::speaker::{Peer, Speaker};
use crate::update_group::{Member, Request};

impl Speaker {
    /// What decides about what a peer is told; nothing while its session doesn't stand.
    fn export_policy(&self, slot: Slot) -> Option<ExportPolicy> {
        let session = &self.peers.get(slot.0 as usize)?.as_ref()?.session;
        let established = session.established()?;
        let (config, relation) = (&session.config, self.relation(&session.config));
        Some(ExportPolicy::new(slot, config, relation, &established.negotiated, established.link.local))
    }

    /// A session stands: the peer is a member of a group, which tells it everything, then what is new.
    pub(super) fn join_group(&mut self, slot: Slot) {
        let Some(policy) = self.export_policy(slot) else { return };
        let Some(peer) = self.peers.get_mut(slot.0 as usize).and_then(Option::as_mut) else { return };
        let families = policy.families;
        let address = peer.session.config.address;
        let group = self.groups.join(policy, (slot, address), &self.tables.rib, &self.hasher);
        let mut member = Member::of(group, address);
        for family in Family::ALL.into_iter().filter(|&family| families[family as usize]) {
            member.request(family, Request { force: false, end_of_rib: true });
        }
        peer.member = Some(member);
    }

    /// What a peer is told may be judged otherwise from here on: it changes to the group that is judged so, and is told of the
    /// difference.
    pub(super) fn change_group(&mut self, slot: Slot) {
        let Some(policy) = self.export_policy(slot) else { return };
        let Some(peer) = self.peers.get_mut(slot.0 as usize).and_then(Option::as_mut) else { return };
        let Some(member) = &mut peer.member else { return };
        let address = member.address;
        let Some(group) = self.groups.get_mut(member.group).filter(|group| group.policy != policy) else {
            return;
        };
        let families = policy.families;
        if policy.alone.is_some() {
            // Its own group is judged anew with it.
            group.judge_again(policy, &self.tables.rib);
        } else {
            member.leave(slot, &mut group.told);
            self.groups.leave(member.group, (slot, address));
            member.group = self.groups.join(policy, (slot, address), &self.tables.rib, &self.hasher);
            if let Some(group) = self.groups.get_mut(member.group) {
                member.arrive(slot, &mut group.told);
            }
        }
        for family in Family::ALL.into_iter().filter(|&family| families[family as usize]) {
            member.request(family, Request::default());
        }
    }

    pub(super) fn leave_group(&mut self, slot: Slot, peer: &mut Peer) {
        if let Some(member) = peer.member.take() {
            self.groups.leave(member.group, (slot, member.address));
        }
    }
}
