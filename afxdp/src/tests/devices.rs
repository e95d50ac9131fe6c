//! What interfaces tell of themselves, and the checksum switch.

use super::namespace::{in_namespace, veth};
use crate::{DeviceFeatures, interface_index, set_tx_checksum, tx_checksum};

#[test]
fn a_veth_tells_its_driver_its_queues_and_that_it_copies() {
    in_namespace(|| {
        let (a, _b) = veth("a", "b", 3);
        let device = DeviceFeatures::of(a).unwrap();
        assert_eq!((device.name.as_str(), device.driver.as_deref()), ("a", Some("veth")));
        assert_eq!(device.receive_queues, 3);
        assert_ne!(device.native_xdp, Some(false));
        assert_ne!(device.zero_copy, Some(true));
        println!("{device:?}");
    });
}

#[test]
fn an_interface_that_is_not_there_is_an_error() {
    in_namespace(|| {
        assert!(DeviceFeatures::of(9999).is_err());
        assert!(interface_index("nosuch").is_err());
        assert!(set_tx_checksum("nosuch", false).is_err());
        assert!(set_tx_checksum("a_name_that_is_much_too_long", false).is_err());
    });
}

#[test]
fn transmit_checksums_are_switched_off_and_on() {
    in_namespace(|| {
        veth("a", "b", 1);
        assert!(tx_checksum("a").unwrap());
        set_tx_checksum("a", false).unwrap();
        assert!(!tx_checksum("a").unwrap());
        assert!(tx_checksum("b").unwrap(), "only the one asked for");
        set_tx_checksum("a", true).unwrap();
        assert!(tx_checksum("a").unwrap());
    });
}
