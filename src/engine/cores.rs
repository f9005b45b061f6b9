//! Which thread runs on which CPU: a core of its own for each, near the interface, a pair together.
//!
//! Linux lists cores, their hardware threads and NUMA nodes under `/sys`; where it does not, every CPU
//! counts as a core of one node.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

use crate::config::CpuList;
use crate::io::interface_of;
use crate::os;

/// Which CPU a pair of threads runs on; `None`: anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) sender: Option<usize>,
    pub(super) receiver: Option<usize>,
    /// No other packet thread of this session has the sender's CPU: it may spin.
    pub(super) apart: bool,
}

/// The CPUs of `count` pairs of a session from `local`, over `interface` where it is bound to one.
pub(super) fn pairs(
    wish: Option<&CpuList>,
    count: usize,
    local: IpAddr,
    interface: Option<&str>,
) -> Vec<Pair> {
    if let Some(list) = wish {
        return from_list(list.cpus(), count);
    }
    let places = places();
    let node = interface_node(local, interface);
    from_list(&choose(&places, node, count), count)
}

/// The CPU of reflector thread `index`: the last ones, since sessions take the first.
pub(super) fn reflector(wish: Option<&CpuList>, index: usize) -> Option<usize> {
    if let Some(list) = wish {
        return list.cpus().get(index % list.cpus().len()).copied();
    }
    let places = places();
    if places.len() < 2 {
        return None;
    }
    let mut order = preferred(&places, None);
    // Whole cores first here, too: their second hardware threads are at the end of that list.
    let cores = places.iter().filter(|place| place.first).count();
    order.truncate(cores.max(2));
    order.iter().rev().cycle().nth(index).copied()
}

/// Pairs that take the CPUs of a list in turn.
fn from_list(cpus: &[usize], count: usize) -> Vec<Pair> {
    let at = |index: usize| match cpus {
        [] => None,
        cpus => cpus.get(index % cpus.len()).copied(),
    };
    let pair = |index: usize| {
        let (sender, receiver) = (at(2 * index), at(2 * index + 1));
        let others = (0..2 * count).filter(|other| *other != 2 * index);
        Pair {
            sender,
            receiver,
            apart: sender.is_some() && others.map(at).all(|cpu| cpu != sender),
        }
    };
    (0..count).map(pair).collect()
}

/// A CPU that this process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    cpu: usize,
    node: usize,
    /// The first usable hardware thread of its core.
    first: bool,
}

/// CPUs for `count` pairs, two of one node after the other; fewer where there are not so many.
fn choose(places: &[Place], node: Option<usize>, count: usize) -> Vec<usize> {
    if places.len() < 2 {
        return Vec::new();
    }
    let mut places = places.to_vec();
    if places.len() >= 2 * count + 2 {
        // Interrupts, statistics and everything else keep the first one.
        places.remove(0);
    }
    let order = preferred(&places, node);
    let node_of = |cpu: usize| places.iter().find(|place| place.cpu == cpu).map(|p| p.node);
    // The two of a pair share a node wherever it has two left.
    let mut waiting: BTreeMap<Option<usize>, usize> = BTreeMap::new();
    let mut chosen = Vec::new();
    for cpu in order {
        match waiting.remove(&node_of(cpu)) {
            Some(first) => chosen.extend([first, cpu]),
            None => {
                waiting.insert(node_of(cpu), cpu);
            }
        }
    }
    chosen.extend(waiting.into_values());
    if chosen.len() > 2 * count {
        chosen.truncate(2 * count);
    } else if chosen.len() > 2 && chosen.len() % 2 == 1 {
        // An odd one would give every pair of the next round the other's places.
        chosen.pop();
    }
    chosen
}

/// All CPUs, the best first: cores of their own before second hardware threads, the node's before the
/// others'.
fn preferred(places: &[Place], node: Option<usize>) -> Vec<usize> {
    let mut places = places.to_vec();
    places.sort_by_key(|place| {
        let far = node.is_some_and(|node| node != place.node);
        (!place.first, far, place.node, place.cpu)
    });
    places.into_iter().map(|place| place.cpu).collect()
}

fn places() -> Vec<Place> {
    let allowed = os::allowed_cpus();
    let place = |&cpu: &usize| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let siblings = fs::read_to_string(path).unwrap_or_default();
        let siblings: Option<CpuList> = siblings.trim().parse().ok();
        let siblings = siblings.as_ref().map_or(&[] as &[usize], CpuList::cpus);
        let first = !siblings
            .iter()
            .any(|other| *other < cpu && allowed.contains(other));
        Place {
            cpu,
            node: node_of(cpu).unwrap_or(0),
            first,
        }
    };
    allowed.iter().map(place).collect()
}

fn number(path: &str) -> Option<usize> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn node_of(cpu: usize) -> Option<usize> {
    let entries = fs::read_dir(format!("/sys/devices/system/cpu/cpu{cpu}")).ok()?;
    entries.flatten().find_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.strip_prefix("node")?.parse().ok()
    })
}

/// The NUMA node of the interface that packets leave by, where it has one.
fn interface_node(local: IpAddr, interface: Option<&str>) -> Option<usize> {
    let name = interface
        .map(str::to_owned)
        .or_else(|| interface_of(local))?;
    // -1, and no such file, where there is no node.
    number(&format!("/sys/class/net/{name}/device/numa_node"))
}

/// Both lists, ascending, each number once.
pub(crate) fn merged(mut list: Vec<usize>, more: &[usize]) -> Vec<usize> {
    list.extend_from_slice(more);
    list.sort_unstable();
    list.dedup();
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cpus: &[(usize, usize, bool)]) -> Vec<Place> {
        let place = |&(cpu, node, first)| Place { cpu, node, first };
        cpus.iter().map(place).collect()
    }

    fn flat(count: usize) -> Vec<Place> {
        let cpus: Vec<_> = (0..count).map(|cpu| (cpu, 0, true)).collect();
        machine(&cpus)
    }

    #[test]
    fn the_first_cpu_is_left_to_others_where_there_are_enough() {
        assert!(choose(&flat(1), None, 1).is_empty());
        assert_eq!(choose(&flat(2), None, 1), [0, 1]);
        assert_eq!(choose(&flat(3), None, 1), [0, 1]);
        assert_eq!(choose(&flat(4), None, 1), [1, 2]);
        assert_eq!(choose(&flat(8), None, 3), [1, 2, 3, 4, 5, 6]);
        assert_eq!(choose(&flat(2), None, 4), [0, 1]);
        assert_eq!(choose(&flat(5), None, 4), [0, 1, 2, 3]);
    }

    #[test]
    fn second_hardware_threads_come_last() {
        // Siblings next to each other, and half the list apart.
        let near = machine(&[
            (0, 0, true),
            (1, 0, false),
            (2, 0, true),
            (3, 0, false),
            (4, 0, true),
            (5, 0, false),
        ]);
        assert_eq!(choose(&near, None, 1), [2, 4]);
        let apart = machine(&[(0, 0, true), (1, 0, true), (2, 0, false), (3, 0, false)]);
        assert_eq!(choose(&apart, None, 2), [0, 1, 2, 3]);
    }

    #[test]
    fn pairs_stay_on_a_node_and_the_interface_s_comes_first() {
        let two: Vec<_> = (0..8).map(|cpu| (cpu, cpu / 4, true)).collect();
        let two = machine(&two);
        assert_eq!(choose(&two, Some(1), 1), [4, 5]);
        assert_eq!(choose(&two, None, 1), [1, 2]);
        // Three are left of node 0: the third one has no partner there.
        assert_eq!(choose(&two, Some(0), 3), [1, 2, 4, 5, 6, 7]);
    }

    #[test]
    fn a_list_of_the_user_s_is_taken_in_turn() {
        let pairs = from_list(&[3, 5, 7], 2);
        assert_eq!((pairs[0].sender, pairs[0].receiver), (Some(3), Some(5)));
        assert_eq!((pairs[1].sender, pairs[1].receiver), (Some(7), Some(3)));
        assert!(!pairs[0].apart && pairs[1].apart);
        assert!(!from_list(&[2], 1)[0].apart);
        assert!(from_list(&[2, 3], 1)[0].apart);
        let nowhere = Pair {
            sender: None,
            receiver: None,
            apart: false,
        };
        assert_eq!(from_list(&[], 1), [nowhere]);
    }

    #[test]
    fn this_machine_has_a_place_for_every_cpu() {
        let places = places();
        assert_eq!(places.len(), os::allowed_cpus().len());
        assert!(places.iter().any(|place| place.first));
    }
}
