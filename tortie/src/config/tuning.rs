//! `tuning`: what the router may change of this machine so that packets and their cores find each other.

use super::field;
use super::field::Fault;
use super::file::{File, Section};
use crate::tuning::Tuning;

/// `napi_defer_hard_irqs` and `gro_flush_timeout` where workers poll the drivers: long enough that they come first, and short
/// enough that packets don't wait long for a worker that doesn't (Documentation/networking/napi.rst).
const BUSY_POLL: (u32, u32) = (2, 200_000);

/// The section, where there is one: without it nothing of the machine is touched.
pub(super) fn tuning(file: &File, busy_poll: bool) -> Result<Option<Tuning>, Fault> {
    let Some(Section(fields)) = &file.tuning else { return Ok(None) };
    let switches = [("auto", true), ("keep", false)];
    let number = |path, entry, range| {
        field(path, entry).map(|field| field.number(range)).transpose().map(|number| number.map(|n| n as u32))
    };
    let (looks, timeout) = busy_poll.then_some(BUSY_POLL).unzip();
    Ok(Some(Tuning {
        queues: field("tuning.queues", &fields.queues).map_or(Ok(true), |field| field.one_of(&switches))?,
        interrupts: field("tuning.interrupts", &fields.interrupts)
            .map_or(Ok(true), |field| field.one_of(&switches))?,
        governor: field("tuning.governor", &fields.governor)
            .map_or(Ok(true), |field| field.one_of(&[("performance", true), ("keep", false)]))?,
        rings: number("tuning.rings", &fields.rings, (64, 16_384))?,
        defer_hard_irqs: number("tuning.defer_hard_irqs", &fields.defer_hard_irqs, (0, 1_000))?.or(looks),
        gro_flush_timeout: number("tuning.gro_flush_timeout", &fields.gro_flush_timeout, (0, 10_000_000))?
            .or(timeout),
    }))
}
