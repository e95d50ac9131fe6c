//! Rules that ask for no address: for each kind of packet, the first of them at every source and destination port.
//!
//! Ports that no rule tells apart are one interval, and a kind's rules are painted on a grid of its intervals. An interval is
//! found by the place where a port's group of 32 begins among all starts: not more than 32 starts lie in it.

use std::collections::{BTreeSet, HashMap};

use super::blocks::{Asked, KINDS, Lane, NO_RANK, Rank, Span};
use super::processor::{PORTS, Processor};

/// Cells of all grids at most: half a megabyte.
const CELLS_MAX: usize = 1 << 18;
/// Groups of ports.
const GROUPS: usize = (1 << 16) / PORTS;

/// The place of each group of ports among all starts: how many are before its second port.
type Groups = [u16; GROUPS];

/// Starts of intervals in the making: the port before each, in order, axis by axis of grid by grid, and behind those of each
/// axis what no port is more than.
#[derive(Default)]
struct Starts(Vec<u16>);

impl Starts {
    /// Those of another axis: its groups, where its intervals begin to count, and its starts but for that at 0. `None` where
    /// there are too many.
    fn push(&mut self, spans: impl Iterator<Item = Span>) -> Option<(Groups, usize, Vec<u32>)> {
        let starts = spans.flat_map(|span| {
            let first = u32::from(span.first);
            [first, first + u32::from(span.more) + 1]
        });
        let starts: BTreeSet<u32> = starts.filter(|start| (1..1 << 16).contains(start)).collect();
        let starts: Vec<u32> = starts.into_iter().collect();
        let base = self.0.len();
        u16::try_from(base + starts.len()).ok()?;
        let mut groups = [0; GROUPS];
        for (number, group) in groups.iter_mut().enumerate() {
            let before = starts.partition_point(|start| *start <= (number * PORTS) as u32);
            *group = (base + before) as u16;
        }
        self.0.extend(starts.iter().map(|start| (start - 1) as u16));
        self.0.extend([u16::MAX; PORTS]);
        Some((groups, base, starts))
    }
}

/// The grid of some kinds.
#[derive(Clone, Debug)]
struct Grid {
    /// Where the cell of the intervals numbered 0 would lie.
    base: u32,
    /// Cells of a destination port's interval.
    width: u32,
    source: Groups,
    destination: Groups,
}

/// All grids.
#[derive(Clone, Debug)]
pub(super) struct PortGrid {
    /// The grid of each kind of packets.
    grid_of: Box<[u8; KINDS]>,
    grids: Vec<Grid>,
    /// So many that no group leads beyond them, whatever it says, and none need be asked. What isn't touched takes no memory.
    starts: Box<[u16; STARTS]>,
    cells: Vec<Rank>,
}

/// Starts of all axes.
const STARTS: usize = (1 << 16) + PORTS;

impl PortGrid {
    /// Of these lanes; `None` where they take too many cells.
    pub(super) fn new(lanes: &[Lane]) -> Option<PortGrid> {
        let mut grid = PortGrid {
            grid_of: Box::new([0; KINDS]),
            grids: Vec::new(),
            starts: bytemuck::zeroed_box(),
            cells: Vec::new(),
        };
        let mut starts = Starts::default();
        // The grids of rules that the same kinds ask.
        let mut known: HashMap<Vec<usize>, u8> = HashMap::new();
        let borders: BTreeSet<usize> = lanes
            .iter()
            .flat_map(|Lane { kind, .. }| {
                [kind.first.into(), usize::from(kind.first) + usize::from(kind.more) + 1]
            })
            .chain([0])
            .filter(|border| *border < KINDS)
            .collect();
        let ends = borders.iter().copied().skip(1).chain([KINDS]);
        for (first, end) in borders.iter().copied().zip(ends) {
            let lanes_of: Vec<usize> =
                (0..lanes.len()).filter(|lane| lanes[*lane].kind.contains(first as u16)).collect();
            let number = match known.get(&lanes_of) {
                Some(number) => *number,
                None => {
                    let number = u8::try_from(known.len()).ok()?;
                    grid.push(&mut starts, &lanes_of.iter().map(|lane| lanes[*lane]).collect::<Vec<_>>())?;
                    known.insert(lanes_of, number);
                    number
                }
            };
            grid.grid_of[first..end].fill(number);
        }
        grid.starts.get_mut(..starts.0.len())?.copy_from_slice(&starts.0);
        Some(grid)
    }

    /// Another grid, of these lanes.
    fn push(&mut self, starts: &mut Starts, lanes: &[Lane]) -> Option<()> {
        let (source, source_base, sources) = starts.push(lanes.iter().map(|lane| lane.source))?;
        let (destination, destination_base, destinations) =
            starts.push(lanes.iter().map(|lane| lane.destination))?;
        let (width, height) = (sources.len() + 1, destinations.len() + 1);
        let at = self.cells.len();
        if at + width * height > CELLS_MAX {
            return None;
        }
        self.cells.resize(at + width * height, NO_RANK);
        let mut lanes: Vec<&Lane> = lanes.iter().collect();
        // The last first: those before it are painted over it.
        lanes.sort_by_key(|lane| std::cmp::Reverse(lane.rank));
        let intervals = |starts: &[u32], span: Span| {
            let (first, last) = (u32::from(span.first), u32::from(span.first) + u32::from(span.more));
            starts.partition_point(|start| *start <= first)
                ..starts.partition_point(|start| *start <= last) + 1
        };
        for lane in lanes {
            let columns = intervals(&sources, lane.source);
            for row in intervals(&destinations, lane.destination) {
                self.cells[at + row * width..][columns.clone()].fill(lane.rank);
            }
        }
        let base = (at as u32).wrapping_sub((destination_base * width + source_base) as u32);
        self.grids.push(Grid { base, width: width as u32, source, destination });
        Some(())
    }

    /// The first rule that a packet matches.
    #[cfg(test)]
    pub(super) fn first(&self, processor: impl Processor, asked: Asked) -> Rank {
        self.cells.get(self.cell(processor, asked) as usize).copied().unwrap_or(NO_RANK)
    }

    /// The cell of a packet.
    #[inline(always)]
    pub(super) fn cell(&self, processor: impl Processor, asked: Asked) -> u32 {
        let [kind, source, destination] = asked.numbers();
        let Some(grid) = self.grids.get(usize::from(self.grid_of[usize::from(kind) % KINDS])) else {
            return u32::MAX;
        };
        let row = self.interval(processor, &grid.destination, destination);
        let column = self.interval(processor, &grid.source, source);
        grid.base.wrapping_add(grid.width.wrapping_mul(row)).wrapping_add(column)
    }

    /// The number of a port's interval.
    #[inline(always)]
    fn interval(&self, processor: impl Processor, groups: &Groups, port: u16) -> u32 {
        let before = groups[usize::from(port) / PORTS];
        let starts = self.starts[usize::from(before)..][..PORTS].first_chunk();
        starts.map_or(0, |starts| u32::from(before) + processor.count_below(starts, port))
    }

    /// The first rule in each cell.
    pub(super) fn ranks(&self) -> &[Rank] {
        &self.cells
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        KINDS + size_of_val(&*self.grids) + (STARTS + self.cells.len()) * size_of::<u16>()
    }
}
