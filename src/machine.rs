//! What the kernel tells of the machine we run on: its addresses and names; below, its disks and
//! its CPU. Read from /proc and /sys, which a sandbox without netlink has too.

pub mod cpu;
pub mod disk;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// Most addresses that are told of; a machine with more has them made up by containers.
const ADDRESSES_MAX: usize = 32;

/// This machine's own addresses, sorted: without loopback, without those that are good on one
/// link alone, and without IPv6 addresses that are made up anew each day. None where the kernel
/// does not tell.
pub fn addresses() -> Vec<IpAddr> {
    let read =
        |file: &str| std::fs::read_to_string(Path::new("/proc/self/net").join(file)).unwrap_or_default();
    let mut found = ipv4(&read("fib_trie"));
    found.extend(ipv6(&read("if_inet6")));
    found.sort_unstable();
    found.dedup();
    found.truncate(ADDRESSES_MAX);
    found
}

/// The local addresses of a routing table: each stands on the line before its `/32 host LOCAL`.
fn ipv4(fib_trie: &str) -> Vec<IpAddr> {
    let mut last = None;
    let mut found = Vec::new();
    for line in fib_trie.lines() {
        if let Some(address) = line.trim_start().strip_prefix("|-- ") {
            last = address.trim().parse::<Ipv4Addr>().ok();
        } else if line.trim() == "/32 host LOCAL" {
            found.extend(last.filter(|address| !address.is_loopback() && !address.is_link_local()));
        }
    }
    found.into_iter().map(IpAddr::V4).collect()
}

/// Lines of an address in hex, its interface, prefix, scope and flags.
fn ipv6(if_inet6: &str) -> Vec<IpAddr> {
    const SCOPE_GLOBAL: &str = "00";
    /// Made up for a day; gone soon; not yet, or never, ours alone (linux/if_addr.h).
    const PASSING: u8 = 0x01 | 0x20 | 0x40 | 0x08;
    let address = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [hex, _, _, scope, flags, ..] = fields.as_slice() else { return None };
        let flags = u8::from_str_radix(flags, 16).ok()?;
        let lasting = *scope == SCOPE_GLOBAL && flags & PASSING == 0;
        let address = u128::from_str_radix(hex, 16).ok().filter(|_| lasting)?;
        Some(IpAddr::V6(Ipv6Addr::from_bits(address)))
    };
    if_inet6.lines().filter_map(address).collect()
}

/// This machine's name, if a certificate can hold it.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    if is_host_name(&name) { name } else { "localhost".to_owned() }
}

/// What /etc/hosts calls this machine: the names beside its addresses and its loopback.
pub fn names_of(own: &[IpAddr]) -> Vec<String> {
    names_in(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), own)
}

fn names_in(hosts: &str, own: &[IpAddr]) -> Vec<String> {
    let mut names = Vec::new();
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        if address.is_some_and(|address| address.is_loopback() || own.contains(&address)) {
            // Those of IPv6 that every Debian has name nothing that anybody calls.
            let usual = |name: &String| is_host_name(name) && !name.starts_with("ip6-");
            names.extend(words.map(str::to_ascii_lowercase).filter(usual));
        }
    }
    names
}

fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() < 254
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_addresses_are_those_that_others_reach_it_by_for_longer_than_a_day() {
        let fib_trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 127.0.0.1\n        \
                        /32 host LOCAL\n     |-- 192.0.2.0\n        /24 link UNICAST\n     |-- 192.0.2.2\n        /32 host LOCAL\n     \
                        |-- 169.254.7.7\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n";
        assert_eq!(ipv4(fib_trie), [IpAddr::from([192, 0, 2, 2])]);
        let if_inet6 = "fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n\
                        20010db8000000000000000000000002 04 40 00 80     eth0\n\
                        20010db80000000000000000deadbeef 04 40 00 01     eth0\n\
                        00000000000000000000000000000001 01 80 10 80       lo\nnonsense\n";
        assert_eq!(ipv6(if_inet6), ["2001:db8::2".parse::<IpAddr>().expect("an address")]);
    }

    #[test]
    fn a_machines_names_stand_beside_its_addresses() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 Pi.site.example pi # the box\n192.0.2.2 registry\n\
                     192.0.2.3 other\n::1 ip6-localhost\n# 127.0.0.1 no\n127.0.0.1 b\u{e4}d\n";
        let own = [IpAddr::from([192, 0, 2, 2])];
        assert_eq!(names_in(hosts, &own), ["localhost", "pi.site.example", "pi", "registry"]);
    }
}
