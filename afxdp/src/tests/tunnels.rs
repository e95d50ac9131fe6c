//! The set of tunnels that end here changes while their packets arrive.

use std::net::{IpAddr, Ipv4Addr};

use super::namespace::{self, Wire, collect, in_namespace, veth};
use crate::{AttachRequest, ModeRequest, Program, ProgramKind, RingSizes, TunnelKind, UmemSet};

const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Packet number `n` of a UDP tunnel to the node.
fn tunnelled(n: u16, port: u16) -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
    frame[18..20].copy_from_slice(&n.to_be_bytes());
    frame[26..30].copy_from_slice(&[203, 0, 113, 9]);
    frame[30..34].copy_from_slice(&OURS.octets());
    frame[36..38].copy_from_slice(&port.to_be_bytes());
    frame
}

#[test]
fn a_tunnel_that_stays_loses_nothing_while_others_come_and_go() {
    in_namespace(|| {
        let (a, b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(1024);
        let program = Program::load(ProgramKind::Uplink, 1).unwrap();
        program.add_local(IpAddr::V4(OURS), None).unwrap();
        program.add_tunnel(TunnelKind::Vxlan { port: 4789 }).unwrap();
        program.attach(a, AttachRequest::Native).unwrap();
        let mut config = namespace::queue(a, 0);
        config.mode = ModeRequest::Copy;
        config.rings = RingSizes { rx: 512, tx: 64, fill: 512, completion: 64 };
        let (mut queue, _) = UmemSet::new(region).bind(config).unwrap();
        program.set_socket(0, &queue).unwrap();
        queue.refill(&mut pool);

        let wire = Wire::new(b);
        let sent: Vec<_> = (0..400).map(|n| tunnelled(n, 4789)).collect();
        // Fewer at once than a veth keeps for a kernel that hasn't come to receiving yet (`VETH_RING_SIZE`).
        for (begin, frames) in sent.chunks(100).enumerate() {
            for (n, frame) in frames.iter().enumerate() {
                let other = if n % 4 < 2 { TunnelKind::Ipip } else { TunnelKind::Vxlan { port: 8472 } };
                if n % 2 == 0 {
                    program.add_tunnel(other).unwrap();
                } else {
                    assert!(program.remove_tunnel(other).unwrap());
                }
                wire.send(frame);
            }
            assert_eq!(collect(&mut queue, &mut pool, frames.len()), frames, "after {begin} times 100");
        }

        // The port that is known now, and none of those that were.
        program.add_tunnel(TunnelKind::Vxlan { port: 8472 }).unwrap();
        program.remove_tunnel(TunnelKind::Vxlan { port: 4789 }).unwrap();
        wire.send(&tunnelled(1000, 4789));
        wire.send(&tunnelled(1001, 8472));
        assert_eq!(collect(&mut queue, &mut pool, 1), [tunnelled(1001, 8472)]);
    });
}
