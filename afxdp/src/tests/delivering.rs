//! Frames handed to the kernel come in by their interface, past the program that would take them.

use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Socket, Type};

use super::namespace::{PATIENCE, Wire, in_namespace, veth};
use crate::{AttachRequest, Delivery, Program, ProgramError, ProgramKind};

/// A DHCP request: UDP from 0.0.0.0, port 68, to everybody's port 67.
fn request() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 8, 0]);
    frame.extend([0x45, 0, 0, 20 + 8 + 5, 0, 0, 0, 0, 64, 17, 0x7a, 0xcd, 0, 0, 0, 0, 255, 255, 255, 255]);
    frame.extend([0, 68, 0, 67, 0, 8 + 5, 0, 0]);
    frame.extend(b"hello");
    frame
}

/// A DHCP server's socket on one interface.
fn server(interface: &str) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind_device(Some(interface.as_bytes())).unwrap();
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 67).into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn a_frame_is_received_by_its_interface_and_no_other() {
    in_namespace(|| {
        let delivery = match Delivery::new() {
            Err(ProgramError::NotPermitted { doing }) => {
                return println!("skipped: not permitted to {doing}");
            }
            delivery => delivery.unwrap(),
        };
        let (a, b) = veth("a", "b", 1);
        let program = Program::load(ProgramKind::Workload, 1).unwrap();
        program.attach(a, AttachRequest::Native).unwrap();
        let (here, there) = (server("a"), server("b"));
        let wire = Wire::new(b);
        delivery.receive(a, &request()).unwrap();
        let mut bytes = [MaybeUninit::uninit(); 64];
        let (length, from) = here.recv_from(&mut bytes).expect("the server on the interface hears it");
        assert_eq!((length, from.as_socket_ipv4()), (5, Some(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68))));
        there.set_nonblocking(true).unwrap();
        assert!(there.recv(&mut bytes).is_err(), "the other end's doesn't");
        assert_eq!(wire.try_receive(), None, "and nothing goes out");
    });
}

#[test]
fn what_cant_be_received_is_said() {
    in_namespace(|| {
        let Ok(delivery) = Delivery::new() else { return println!("skipped: no program can be loaded") };
        let (a, _) = veth("a", "b", 1);
        let said =
            |ifindex, frame: &[u8]| delivery.receive(ifindex, frame).map_err(|error| error.raw_os_error());
        assert_eq!(said(a + 1000, &request()), Err(Some(libc::ENODEV)));
        assert!(said(a, &request()[..10]).is_err(), "shorter than its Ethernet header");
        let mut long = request();
        long.resize(3000, 0);
        assert_eq!(said(a, &long), Ok(()));
        long.resize(9000, 0);
        assert!(said(a, &long).is_err());
    });
}
