//! Which registration of the region a queue joins, and the modes it gets.

use std::time::Duration;

use super::namespace::{self, Wire, eventually, in_namespace, numbered, veth};
use crate::{
    AttachError, AttachRequest, BindError, BusyPoll, BusyPollOutcome, Mode, ModeRequest, Program,
    ProgramError, ProgramKind, Step, UmemSet,
};

#[test]
fn zero_copy_on_a_veth_fails_clearly_and_auto_settles_for_copy_and_says_so() {
    in_namespace(|| {
        let (a, _b) = veth("a", "b", 1);
        let (region, mut pool) = namespace::region(64);
        let mut umems = UmemSet::new(region);
        let mut config = namespace::queue(a, 0);
        config.mode = ModeRequest::ZeroCopy;
        let error = umems.bind(config).unwrap_err();
        assert!(
            matches!(&error, BindError::Unsupported { mode: Mode::ZeroCopy, driver: Some(driver), .. } if driver == "veth"),
            "{error}"
        );
        config.mode = ModeRequest::Auto;
        let (queue, report) = umems.bind(config).unwrap();
        assert_eq!((report.mode, queue.mode()), (Mode::Copy, Mode::Copy));
        assert_eq!(report.attempts.len(), 1);
        assert_eq!((report.attempts[0].mode, report.attempts[0].errno), (Mode::ZeroCopy, libc::EOPNOTSUPP));
        let text = report.to_string();
        assert!(text.contains("copy mode") && text.contains("zero-copy failed"), "{text}");
        queue.close(&mut pool);
    });
}

#[test]
fn queues_of_one_mode_share_a_registration_across_interfaces() {
    in_namespace(|| {
        let (a, b) = veth("a", "b", 1);
        let (region, _pool) = namespace::region(64);
        let mut umems = UmemSet::new(region);
        let (_one, first) = umems.bind(namespace::queue(a, 0)).unwrap();
        let (_other, second) = umems.bind(namespace::queue(b, 0)).unwrap();
        assert_eq!((first.shared, second.shared), (false, true));
        assert!(matches!(umems.bind(namespace::queue(a, 0)), Err(BindError::AlreadyBound { .. })));
    });
}

#[test]
fn sharing_outlives_the_queue_that_registered_first() {
    in_namespace(|| {
        let (a, b) = veth("a", "b", 1);
        let (c, _d) = veth("c", "d", 1);
        let (region, mut pool) = namespace::region(64);
        let mut umems = UmemSet::new(region);
        let (first, _) = umems.bind(namespace::queue(a, 0)).unwrap();
        let (second, _) = umems.bind(namespace::queue(b, 0)).unwrap();
        first.close(&mut pool);
        let (third, report) = umems.bind(namespace::queue(c, 0)).unwrap();
        assert!(report.shared, "with the second, as the first is gone");
        second.close(&mut pool);
        third.close(&mut pool);
        let (_fourth, report) = umems.bind(namespace::queue(a, 0)).unwrap();
        assert!(!report.shared, "all are gone: registered again");
    });
}

#[test]
fn a_queue_whose_interface_is_gone_does_not_keep_others_from_sharing() {
    in_namespace(|| {
        let (a, _a_peer) = veth("a", "ap", 1);
        let (b, b_peer) = veth("b", "bp", 1);
        let (region, mut pool) = namespace::region(64);
        let mut umems = UmemSet::new(region);
        let (orphan, _) = umems.bind(namespace::queue(a, 0)).unwrap();
        let (second, _) = umems.bind(namespace::queue(b, 0)).unwrap();
        namespace::ip("link del dev a");
        let (third, report) = umems.bind(namespace::queue(b_peer, 0)).unwrap();
        assert!(report.shared, "{report}");
        for queue in [orphan, second, third] {
            assert_eq!(queue.close(&mut pool).lost, 0);
        }
    });
}

#[test]
fn frames_pass_between_two_registrations_of_the_same_memory() {
    in_namespace(|| {
        let (a, a_peer) = veth("a", "ap", 1);
        let (b, b_peer) = veth("b", "bp", 1);
        let (region, mut pool) = namespace::region(128);
        let mut umems = UmemSet::new(region);
        let program = Program::load(ProgramKind::Workload, 1).unwrap();
        program.attach(a, AttachRequest::Native).unwrap();
        let mut config = namespace::queue(a, 0);
        config.rings.fill = 64;
        let (mut from, first) = umems.bind(config).unwrap();
        // Wake-ups are a property of the registration too, so this can't join the first. A second mode would do the
        // same; no interface here can do zero copy.
        config.ifindex = b;
        config.need_wakeup = false;
        let (mut to, second) = umems.bind(config).unwrap();
        assert_eq!((first.shared, second.shared), (false, false));
        program.set_socket(0, &from).unwrap();
        from.refill(&mut pool);
        Wire::new(a_peer).send(&numbered(5, 500));
        let sink = Wire::new(b_peer);
        let mut frames = Vec::new();
        eventually(|| (from.receive(&mut pool, &mut frames, 8) > 0).then_some(())).expect("it arrives");
        to.transmit(&mut frames);
        to.wake().unwrap();
        assert_eq!(sink.receive(), Some(numbered(5, 500)));
        assert_eq!(from.close(&mut pool).lost + to.close(&mut pool).lost, 0);
        assert_eq!(pool.available(), pool.total());
    });
}

#[test]
fn a_frame_of_another_region_cannot_be_transmitted() {
    in_namespace(|| {
        let (a, _b) = veth("a", "b", 1);
        let (region, _pool) = namespace::region(8);
        let (_other, mut other_pool) = namespace::region(8);
        let (mut queue, _) = UmemSet::new(region).bind(namespace::queue(a, 0)).unwrap();
        let mut frame = other_pool.take().unwrap();
        frame.copy_from(&[0; 64]).unwrap();
        let transmitted =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| queue.transmit(&mut vec![frame])));
        assert!(transmitted.is_err());
    });
}

#[test]
fn what_cannot_be_bound_is_refused_with_the_reason() {
    in_namespace(|| {
        let (a, _b) = veth("a", "b", 2);
        let (region, _pool) = namespace::region(8);
        let mut umems = UmemSet::new(region);
        let error = umems.bind(namespace::queue(a, 4)).unwrap_err();
        assert!(matches!(error, BindError::NoSuchQueue { queue: 4, queues: 2, .. }), "{error}");
        let error = umems.bind(namespace::queue(9999, 0)).unwrap_err();
        assert!(matches!(error, BindError::NoInterface { ifindex: 9999 }), "{error}");
        let mut config = namespace::queue(a, 0);
        config.rings.tx = 100;
        assert!(matches!(umems.bind(config), Err(BindError::RingSize { ring: "tx", size: 100 })));
    });
}

#[test]
fn the_send_budget_and_busy_polling_are_reported_as_the_kernel_took_them() {
    in_namespace(|| {
        let (a, b) = veth("a", "b", 1);
        let (region, _pool) = namespace::region(8);
        let mut umems = UmemSet::new(region);
        let mut config = namespace::queue(a, 0);
        config.busy_poll = Some(BusyPoll { usecs: 20, budget: 64 });
        let (_queue, report) = umems.bind(config).unwrap();
        assert_ne!(report.busy_poll, BusyPollOutcome::Off);
        println!("{report}");
        config.ifindex = b;
        config.tx_budget = Some(1); // below the least the kernel takes
        config.busy_poll = None;
        config.bind_retry = Duration::ZERO;
        let (_queue, report) = umems.bind(config).unwrap();
        assert_eq!((report.tx_budget, report.busy_poll), (None, BusyPollOutcome::Off));
    });
}

#[test]
fn without_privilege_every_refusal_says_what_is_missing() {
    in_namespace(|| {
        let (a, _b) = veth("a", "b", 1);
        let program = Program::load(ProgramKind::Workload, 1).unwrap();
        namespace::drop_privileges();
        let (region, _pool) = namespace::region(8);
        let error = UmemSet::new(region).bind(namespace::queue(a, 0)).unwrap_err();
        assert!(matches!(error, BindError::NotPermitted { step: Step::Open }), "{error}");
        let error = Program::load(ProgramKind::Workload, 1).unwrap_err();
        assert!(matches!(error, ProgramError::NotPermitted { .. }), "{error}");
        let error = program.attach(a, AttachRequest::Native).unwrap_err();
        assert!(matches!(error, AttachError::NotPermitted { .. }), "{error}");
        assert_eq!(crate::set_tx_checksum("a", false).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(crate::DeviceFeatures::of(a).is_ok(), "asking is free");
    });
}
