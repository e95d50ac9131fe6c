//! Programs on interfaces: ours replace ours, others are left alone, and what happens without a socket.

use std::os::fd::{AsFd, AsRawFd};

use super::namespace::{self, Wire, collect, in_namespace, ip, numbered, veth};
use crate::bpf::load;
use crate::{
    Attach, AttachError, AttachRequest, Program, ProgramError, ProgramKind, UmemSet, abi, attached, detach,
    netlink,
};

/// An IPv4 packet that only passes through, in an Ethernet frame.
fn transit(n: u8) -> Vec<u8> {
    let mut frame = numbered(0, 60);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..].fill(0);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 46, 0, n, 0, 0, 64, 6]);
    frame[26..34].copy_from_slice(&[203, 0, 113, 9, 198, 51, 100, 7]);
    frame
}

#[test]
fn an_uplink_without_a_socket_leaves_traffic_to_the_kernel_and_a_workload_port_drops_it() {
    in_namespace(|| {
        for (kind, attach, reaches_kernel) in [
            (ProgramKind::Uplink, AttachRequest::Native, true),
            (ProgramKind::Uplink, AttachRequest::Generic, true),
            (ProgramKind::Workload, AttachRequest::Native, false),
        ] {
            let (a, b) = veth("a", "b", 1);
            let program = Program::load(kind, 1).unwrap();
            program.attach(a, attach).unwrap();
            // What the kernel's stack gets of the interface, a packet socket gets too: after XDP.
            let (stack, wire) = (Wire::new(a), Wire::new(b));
            wire.send(&transit(1));
            if reaches_kernel {
                assert_eq!(stack.receive(), Some(transit(1)), "{kind:?} {attach:?}");
            } else {
                std::thread::sleep(std::time::Duration::from_millis(50));
                assert_eq!(stack.try_receive(), None, "{kind:?} {attach:?}");
            }
            ip("link del dev a");
        }
    });
}

#[test]
fn a_program_stays_when_its_owner_goes_and_then_its_fallback_decides() {
    in_namespace(|| {
        let (a, b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(64);
        let mut umems = UmemSet::new(region);
        let program = Program::load(ProgramKind::Uplink, 1).unwrap();
        let report = program.attach(a, AttachRequest::Auto).unwrap();
        assert_eq!((report.attach, report.replaced, report.native_refused), (Attach::Native, None, None));
        let mut config = namespace::queue(a, 0);
        config.rings.fill = 32;
        let (mut queue, _) = umems.bind(config).unwrap();
        assert!(matches!(program.set_socket(1, &queue), Err(ProgramError::NoSuchQueue { .. })));
        program.set_socket(0, &queue).unwrap();
        queue.refill(&mut pool);
        let (stack, wire) = (Wire::new(a), Wire::new(b));
        wire.send(&transit(1));
        assert_eq!(collect(&mut queue, &mut pool, 1), [transit(1)]);
        assert_eq!(stack.try_receive(), None, "taken by the socket");
        let arp = numbered(3, 60);
        wire.send(&arp);
        assert_eq!(stack.receive(), Some(arp), "not IP: the kernel's");

        let id = program.id();
        drop(program);
        assert_eq!(queue.close(&mut pool).lost, 0);
        let present = attached(a).unwrap();
        assert_eq!((present.len(), present[0].id, present[0].name.as_str()), (1, id, "tortie_uplink"));
        wire.send(&transit(2));
        assert_eq!(stack.receive(), Some(transit(2)), "no socket: the kernel's");
    });
}

#[test]
fn a_program_of_ours_from_an_earlier_life_is_replaced() {
    in_namespace(|| {
        let (a, _b) = veth("a", "b", 1);
        let old = Program::load(ProgramKind::Workload, 1).unwrap();
        let new = Program::load(ProgramKind::Uplink, 1).unwrap();
        old.attach(a, AttachRequest::Native).unwrap();
        let report = new.attach(a, AttachRequest::Native).unwrap();
        let replaced = report.replaced.expect("the old one was there");
        assert_eq!((replaced.id, replaced.name.as_str()), (old.id(), "tortie_workload"));
        assert_eq!(attached(a).unwrap()[0].id, new.id());

        // From native to generic and back: the kernel runs only one kind at a time.
        let report = old.attach(a, AttachRequest::Generic).unwrap();
        assert_eq!(report.attach, Attach::Generic);
        assert_eq!(report.replaced.map(|program| program.id), Some(new.id()));
        let present = attached(a).unwrap();
        assert_eq!((present.len(), present[0].id, present[0].attach), (1, old.id(), Attach::Generic));
        assert_eq!(new.attach(a, AttachRequest::Auto).unwrap().attach, Attach::Native);

        let gone = detach(a).unwrap();
        assert_eq!((gone.len(), gone[0].id), (1, new.id()));
        assert!(attached(a).unwrap().is_empty());
        assert!(detach(a).unwrap().is_empty());
    });
}

#[test]
fn a_program_that_is_not_ours_is_left_alone_and_named() {
    in_namespace(|| {
        let (a, _b) = veth("a", "b", 1);
        // mov r0, XDP_PASS; exit
        let foreign = load::program("someone_else", &[0x0000_0002_0000_00b7, 0x95]).unwrap();
        netlink::set_xdp(a, Some(foreign.as_raw_fd()), abi::XDP_FLAGS_DRV_MODE, None).unwrap();
        let (id, _) = load::describe(foreign.as_fd()).unwrap();

        let program = Program::load(ProgramKind::Uplink, 1).unwrap();
        let error = program.attach(a, AttachRequest::Auto).unwrap_err();
        assert!(matches!(&error, AttachError::Foreign { program, .. } if program.id == id), "{error}");
        assert!(error.to_string().contains("\"someone_else\""), "{error}");
        assert!(matches!(detach(a), Err(AttachError::Foreign { .. })));
        assert_eq!(attached(a).unwrap()[0].id, id, "still there");
    });
}

#[test]
fn where_the_driver_runs_no_xdp_auto_falls_back_to_generic_and_says_why() {
    in_namespace(|| {
        ip("link set dev lo up");
        let lo = crate::interface_index("lo").unwrap();
        let program = Program::load(ProgramKind::Uplink, 1).unwrap();
        assert!(matches!(program.attach(lo, AttachRequest::Native), Err(AttachError::Refused { .. })));
        let report = program.attach(lo, AttachRequest::Auto).unwrap();
        assert_eq!(report.attach, Attach::Generic);
        assert!(report.native_refused.is_some());
        println!("{report}");
    });
}

#[test]
fn a_refusal_carries_the_kernels_own_words() {
    in_namespace(|| {
        // A veth's end must have a receive queue for each transmit queue of the other.
        ip("link add dev a numrxqueues 1 numtxqueues 1 type veth peer name b numrxqueues 1 numtxqueues 2");
        ip("link set dev a up");
        ip("link set dev b up");
        let a = crate::interface_index("a").unwrap();
        let program = Program::load(ProgramKind::Uplink, 1).unwrap();
        match program.attach(a, AttachRequest::Native).unwrap_err() {
            AttachError::Refused { kernel_says: Some(text), .. } => println!("{text}"),
            other => panic!("one queue doesn't take what two send: {other}"),
        }
        assert!(matches!(program.attach(9999, AttachRequest::Auto), Err(AttachError::NoInterface { .. })));
    });
}
