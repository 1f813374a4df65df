//! Which node of a cluster has which slot. Pure.
//!
//! Enters: the answer to CLUSTER SLOTS, and keys. Leaves: ranges of slots with their nodes, and the slot of a key. Must not
//! take half a table for a whole one.

use std::net::IpAddr;

use super::super::resp::Reply;
use crate::config::Node;

pub(super) const SLOTS: usize = 16_384;

/// The slot of a key: of what stands in its first braces, if anything does.
/// <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model>
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = || {
        let (_, inside) = split(key, b'{')?;
        let (tag, _) = split(inside, b'}')?;
        (!tag.is_empty()).then_some(tag)
    };
    crc16(tag().unwrap_or(key)) % SLOTS as u16
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = memchr::memchr(at, bytes)?;
    Some((&bytes[..place], &bytes[place + 1..]))
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x1021;
            }
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// Slots that follow each other, and who has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) master: Named,
    pub(super) replicas: Vec<Named>,
}

/// A node, and by which other host a redirection may name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) node: Node,
    pub(super) address: Option<String>,
}

impl Named {
    /// Whether it is meant by this host and port.
    pub(super) fn is(&self, node: &Node) -> bool {
        let host = Some(&node.host);
        self.node.port == node.port
            && (Some(&self.node.host) == host || self.address.as_ref() == host)
    }
}

/// Reads CLUSTER SLOTS as `asked` answered it: ranges, each the first slot, the last, the master and its replicas; `None`
/// when it is no such table, or one without slots, as a node has that belongs to no cluster any more.
/// <https://redis.io/docs/latest/commands/cluster-slots/>
pub(super) fn read(reply: &Reply, asked: &str) -> Option<Vec<Range>> {
    let range = |range: &Reply| {
        let [first, last, master, replicas @ ..] = range.list()? else {
            return None;
        };
        let slot = |slot: &Reply| {
            let slot = u16::try_from(slot.number()?).ok()?;
            (usize::from(slot) < SLOTS).then_some(slot)
        };
        Some(Range {
            first: slot(first)?,
            last: slot(last)?,
            master: named(master, asked)?,
            // One that cannot be understood is one less.
            replicas: replicas
                .iter()
                .filter_map(|node| named(node, asked))
                .collect(),
        })
    };
    let ranges: Option<Vec<Range>> = reply.list()?.iter().map(range).collect();
    ranges.filter(|ranges| !ranges.is_empty())
}

/// A node: its preferred host, its port, its id, and what else is known of it. Without a host it is the one that was
/// asked; a name goes before an address, as certificates are for names.
fn named(node: &Reply, asked: &str) -> Option<Named> {
    let [host, port, more @ ..] = node.list()? else {
        return None;
    };
    let host = host
        .text()
        .filter(|host| !host.is_empty() && *host != "?")
        .unwrap_or(asked);
    let hostname = || {
        // Names and values by turns.
        let mut known = more.get(1)?.list()?.chunks_exact(2);
        let pair = known.find(|pair| pair[0].text() == Some("hostname"))?;
        pair[1].text()
    };
    let name = hostname().filter(|name| !name.is_empty() && host.parse::<IpAddr>().is_ok());
    let port = u16::try_from(port.number()?).ok()?;
    Some(Named {
        node: Node {
            host: name.unwrap_or(host).to_owned(),
            port,
        },
        address: name.map(|_| host.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, slot) in [
            ("", 0),
            ("foo", 12_182),
            ("{foo}bar", 12_182),
            ("x{foo}{bar}", 12_182),
            (
                "user:session:42",
                fred::util::redis_keyslot(b"user:session:42"),
            ),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        // No tag: all of the key counts.
        for key in ["foo{}bar", "foo{bar", "foo}bar{"] {
            assert_eq!(slot_of(key.as_bytes()), crc16(key.as_bytes()) % 16_384);
        }
    }

    proptest! {
        #[test]
        fn slots_are_those_of_the_client_that_writes(key in "[a-c{}]{0,12}") {
            prop_assert_eq!(slot_of(key.as_bytes()), fred::util::redis_keyslot(key.as_bytes()));
        }
    }

    fn table(text: &str) -> Option<Vec<Range>> {
        let reply = Reply::read(text.as_bytes()).expect("an answer");
        read(&reply.expect("a whole one"), "asked")
    }

    #[test]
    fn a_table_is_read_with_hosts_in_every_form() {
        let node = |host: &str, port, address: Option<&str>| Named {
            node: Node {
                host: host.to_owned(),
                port,
            },
            address: address.map(str::to_owned),
        };
        let text = "*2\r\n\
            *4\r\n:0\r\n:99\r\n\
            *4\r\n$8\r\n10.0.0.1\r\n:7001\r\n$2\r\naa\r\n*0\r\n\
            *4\r\n$8\r\n10.0.0.2\r\n:7002\r\n$2\r\nbb\r\n*2\r\n$8\r\nhostname\r\n$3\r\nb.c\r\n\
            *3\r\n:100\r\n:16383\r\n\
            *3\r\n$-1\r\n:7003\r\n$2\r\ncc\r\n";
        let ranges = table(text).expect("a table");
        let first = Range {
            first: 0,
            last: 99,
            master: node("10.0.0.1", 7001, None),
            replicas: vec![node("b.c", 7002, Some("10.0.0.2"))],
        };
        let second = Range {
            first: 100,
            last: 16_383,
            master: node("asked", 7003, None),
            replicas: vec![],
        };
        assert_eq!(ranges, [first, second]);
        let named = &ranges[0].replicas[0];
        for host in ["b.c", "10.0.0.2"] {
            let host = host.to_owned();
            assert!(named.is(&Node { host, port: 7002 }));
        }
        let host = "10.0.0.2".to_owned();
        assert!(!named.is(&Node { host, port: 7001 }));
    }

    #[test]
    fn what_is_no_table_is_none() {
        for text in [
            "*0\r\n",
            "+OK\r\n",
            "*1\r\n:1\r\n",
            "*1\r\n*2\r\n:0\r\n:1\r\n",
            "*1\r\n*3\r\n:0\r\n:16384\r\n*3\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n",
            "*1\r\n*3\r\n:0\r\n:1\r\n*3\r\n$1\r\na\r\n:65536\r\n$1\r\nb\r\n",
        ] {
            assert_eq!(table(text), None, "{text:?}");
        }
    }
}
