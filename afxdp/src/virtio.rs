//! What of Linux's virtio_net must be known before it is let send without copying.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::OnceLock;

use crate::features::DeviceFeatures;

/// What to do about a driver that [`sends_stray_headers`].
pub(crate) const STRAY_HEADERS: &str = "the kernel's virtio_net is a module, and maps the header of what it would send \
     without copying wrongly: in about every second start of the machine nothing would leave; \
     see \"Get zero-copy\" in OPERATING.md";

/// Does virtio_net put something other than a header before each frame that it sends without copying?
///
/// The header is a static variable of the driver, `xsk_hdr`, and mapped for the device by `virt_to_page`
/// (`virtnet_xsk_pool_enable`, drivers/net/virtio_net.c; Linux 6.13 to 7.3 at least). That knows addresses of the kernel
/// itself and of its direct map. For one of a module it makes up another, by where the kernel was put at this start: the
/// device reads whatever is there, and drops the frame unless it is zeros. Built into the kernel, all is well.
///
/// A kernel that lists no variables (without CONFIG_KALLSYMS_ALL) is trusted, and so is another driver's interface.
pub(crate) fn sends_stray_headers(ifindex: u32) -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    // A long list: it is read once.
    is_driven(ifindex)
        && *FOUND.get_or_init(|| {
            File::open("/proc/kallsyms").is_ok_and(|symbols| is_in_module(BufReader::new(symbols)))
        })
}

/// Does this interface's driver send by another NAPI than it receives by?
///
/// For a zero-copy socket with preferred busy polling, a call to send polls the receiving one and wakes nobody
/// (`xsk_no_wakeup`, net/xdp/xsk.c). virtio_net sends in the other (`virtnet_poll_tx`), which so is never woken.
pub(crate) fn sends_apart(ifindex: u32) -> bool {
    is_driven(ifindex)
}

/// Is it virtio_net's?
pub(crate) fn is_driven(ifindex: u32) -> bool {
    DeviceFeatures::of(ifindex).ok().and_then(|device| device.driver).as_deref() == Some("virtio_net")
}

/// Is there, in the form of /proc/kallsyms, a module's variable of that name? Who may not see addresses sees names.
fn is_in_module(symbols: impl BufRead) -> bool {
    symbols.lines().map_while(Result::ok).any(|line| {
        let mut words = line.split_ascii_whitespace().skip(2);
        words.next() == Some("xsk_hdr") && words.next() == Some("[virtio_net]")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_astray_where_the_driver_is_a_module() {
        let module = "ffffffff82a00000 D jiffies\n0000000000000000 b xsk_hdr\t[virtio_net]\n";
        assert!(is_in_module(module.as_bytes()));
    }

    #[test]
    fn a_built_in_header_is_in_its_place_and_so_is_none() {
        for symbols in [
            "0000000000000000 b xsk_hdr\n0000000000000000 t virtnet_xsk_wakeup\n",
            "0000000000000000 t virtnet_xsk_wakeup\t[virtio_net]\n0000000000000000 b xsk_hdr\t[other]\n",
            "",
        ] {
            assert!(!is_in_module(symbols.as_bytes()), "{symbols}");
        }
    }
}
