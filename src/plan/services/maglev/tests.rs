//! Tables: what must never change, shares, and what a change of backends moves.

use super::allotment::Allotment;
use super::table::maglev_table;
use crate::model::digest::fnv1a;
use crate::model::maglev::{MaglevBackend, MaglevKey, TABLE_SIZES, table_size};
use crate::model::protocol::Protocol;

fn backend(address: &str, weight: u16) -> MaglevBackend {
    MaglevBackend {
        address: address.parse().unwrap(),
        weight,
    }
}

/// `10.N.0.1:8080` and so on, of weight 1.
fn backends(net: usize, count: usize) -> Vec<MaglevBackend> {
    (0..count)
        .map(|n| backend(&format!("10.{net}.{}.{}:8080", n / 250, n % 250 + 1), 1))
        .collect()
}

fn weighted(weights: &[u16]) -> Vec<MaglevBackend> {
    let mut backends = backends(0, weights.len());
    for (backend, weight) in backends.iter_mut().zip(weights) {
        backend.weight = *weight;
    }
    backends
}

/// How many columns each backend has.
fn counts(backends: &[MaglevBackend], size: u32) -> Vec<u32> {
    let mut counts = vec![0; backends.len()];
    for backend in maglev_table(backends, Protocol::Tcp, size) {
        counts[usize::from(backend)] += 1;
    }
    counts
}

/// The columns that change though their backend stays, if these backends go.
fn moved(all: &[MaglevBackend], gone: &[usize], size: u32) -> usize {
    let left = (0..all.len()).filter(|nth| !gone.contains(nth));
    let left: Vec<MaglevBackend> = left.map(|nth| all[nth]).collect();
    let before = maglev_table(all, Protocol::Tcp, size);
    let after = maglev_table(&left, Protocol::Tcp, size);
    let columns = before.iter().zip(&after);
    let moves = columns.filter(|(before, after)| {
        let was = usize::from(**before);
        !gone.contains(&was) && all[was] != left[usize::from(**after)]
    });
    moves.count()
}

/// The first columns of each table and a digest of all, from an implementation in another language after the paper's pseudocode.
/// They must not change: hosts with different versions of dpd pick the same backends.
#[test]
fn tables_are_the_same_in_every_version() {
    let mixed = [
        backend("10.0.0.1:80", 1),
        backend("10.0.0.2:80", 1),
        backend("10.0.0.2:81", 1),
        backend("[2001:db8::1]:80", 1),
    ];
    let weighted = [backend("10.0.0.1:80", 1), backend("10.0.0.2:80", 3)];
    type Row<'a> = (&'a str, &'a [MaglevBackend], Protocol, &'a [u16], u64);
    let rows: [Row<'_>; 4] = [
        (
            "one",
            &mixed[..1],
            Protocol::Tcp,
            &[0, 0, 0, 0, 0, 0, 0, 0],
            0x9bbb_0f6d_cf28_21fd,
        ),
        (
            "four",
            &mixed,
            Protocol::Tcp,
            &[3, 3, 3, 2, 2, 1, 1, 0],
            0x4b8c_759b_4015_e6f4,
        ),
        (
            "four by UDP",
            &mixed,
            Protocol::Udp,
            &[2, 2, 2, 2, 0, 1, 1, 1],
            0x4a56_a62c_98fa_75a4,
        ),
        (
            "weights",
            &weighted,
            Protocol::Tcp,
            &[0, 1, 0, 1, 1, 1, 1, 1],
            0xe219_779d_da62_fc3d,
        ),
    ];
    for (what, backends, protocol, first, digest) in rows {
        let columns = maglev_table(backends, protocol, 251);
        assert_eq!(&columns[..8], first, "{what}");
        let bytes = columns
            .iter()
            .flat_map(|nth| [(nth >> 8) as u8, *nth as u8]);
        assert_eq!(fnv1a(bytes), digest, "{what}");
    }
}

/// At most one column more than another: 1 % of a backend's columns, for each has a hundred (section 3.4).
#[test]
fn equal_backends_have_equal_shares() {
    for count in [1, 2, 3, 7, 10, 100, 163, 655, 1000] {
        let size = table_size(count);
        let counts = counts(&backends(0, count), size);
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(most - least <= 1, "{count} backends: {least} to {most}");
        assert_eq!(counts.iter().sum::<u32>(), size, "{count} backends");
    }
    assert_eq!(counts(&backends(0, 251), 251), [1; 251], "a column each");
}

#[test]
fn shares_follow_the_weights() {
    let rows: [(&str, &[u16], u32, &[u32]); 8] = [
        ("one to three", &[1, 3], 251, &[63, 188]),
        ("the order of the weights", &[3, 1], 251, &[188, 63]),
        ("equal ones of another weight", &[7, 7], 251, &[126, 125]),
        ("thirds", &[1, 2], 1021, &[340, 681]),
        ("all different", &[1, 2, 3, 4], 1021, &[102, 204, 306, 409]),
        ("at least one column", &[1, 65535], 251, &[1, 250]),
        (
            "the same, in a large table",
            &[65535, 1],
            65521,
            &[65520, 1],
        ),
        ("two light ones", &[1, 1, 65535], 251, &[1, 1, 249]),
    ];
    for (what, weights, size, expected) in rows {
        assert_eq!(counts(&weighted(weights), size), expected, "{what}");
    }
    // A share is the nearest whole number, so at most one column off.
    let weights: Vec<u16> = (1..=100).map(|n| n * n * 6).collect();
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let size = table_size(weights.len());
    for (weight, count) in weights.iter().zip(counts(&weighted(&weights), size)) {
        let exact = u64::from(size) * u64::from(*weight);
        let off = exact.abs_diff(u64::from(count) * total);
        assert!(off <= total, "weight {weight}: {count} of {size} columns");
    }
}

/// Turns by weight and turns in rounds are one rule.
#[test]
fn equal_weights_are_rounds() {
    let (mut equal, mut almost) = (backends(0, 10), backends(0, 10));
    for backend in &mut equal {
        backend.weight = 65535;
    }
    almost[9].weight = 65534;
    for backend in &mut almost[..9] {
        backend.weight = 65535;
    }
    let size = table_size(10);
    let rounds = maglev_table(&equal, Protocol::Tcp, size);
    assert_eq!(rounds, maglev_table(&almost, Protocol::Tcp, size));
    assert_eq!(rounds, maglev_table(&backends(0, 10), Protocol::Tcp, size));
}

/// The paper's experiment (section 5.3): with 1,000 backends and 65,537 columns, columns change beyond the share of those that
/// fail. The bounds are what the algorithm does with random permutations.
#[test]
fn a_backend_that_goes_moves_few_columns_of_others() {
    // (backends, the mean over each of them, of a thousand columns)
    for (count, most) in [(2, 1), (5, 30), (10, 36), (20, 30), (40, 25), (80, 22)] {
        let size = table_size(count);
        let mut columns = 0;
        for net in 0..10 {
            let all = backends(net, count);
            let each = (0..count).step_by(count.div_ceil(10));
            let sum: usize = each.clone().map(|gone| moved(&all, &[gone], size)).sum();
            columns += sum / each.count();
        }
        let mean = columns as u32 * 1000 / 10 / size;
        assert!(mean <= most, "{count} backends: {mean} of 1000 columns");
    }
    let all = backends(0, 1000);
    for (failing, most) in [(1, 8), (5, 20), (10, 25), (20, 29)] {
        let gone: Vec<usize> = (0..failing).map(|nth| nth * 49 + 7).collect();
        let moved = moved(&all, &gone, 65521) * 1000 / 65521;
        assert!(moved <= most, "{failing} of 1000: {moved} of 1000 columns");
    }
}

#[test]
fn a_weight_that_changes_moves_few_columns() {
    let before = weighted(&[100; 10]);
    let mut after = before.clone();
    after[3].weight = 50;
    let tables = [&before, &after].map(|all| maglev_table(all, Protocol::Tcp, 1021));
    let [before, after] = tables;
    let changed = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after);
    let changed = changed.count();
    assert!((40..150).contains(&changed), "{changed} of 1021 columns");
}

#[test]
fn every_size_is_filled() {
    for size in TABLE_SIZES {
        for count in [1, 2, 250] {
            let columns = maglev_table(&backends(0, count), Protocol::Sctp, size);
            assert!(
                columns.iter().all(|nth| usize::from(*nth) < count),
                "{size}"
            );
        }
    }
}

#[test]
fn tables_whose_backends_stay_are_kept() {
    let key = |service, protocol| MaglevKey {
        service,
        is_ipv4: true,
        protocol,
    };
    let (few, many) = (backends(0, 3).into(), backends(1, 10).into());
    let rows = |changed: bool| {
        let mut allotment = Allotment::default();
        let few = match changed {
            true => &weighted(&[1, 2, 3]).into(),
            false => &few,
        };
        let first = [
            allotment.add(key(1, Protocol::Tcp), 509, few),
            allotment.add(key(1, Protocol::Udp), 509, few),
            allotment.add(key(2, Protocol::Tcp), 1021, &[].into()),
            allotment.add(key(3, Protocol::Tcp), 1021, &many),
        ];
        assert_eq!(first, [0, 2, 0, 4]);
        allotment
    };
    let none = Default::default();
    let before = rows(false).tables(&none);
    assert_eq!(before.len(), 3, "none without backends");
    let again = rows(false).tables(&before);
    let is_kept = |after: &crate::model::maglev::MaglevTables, key| {
        std::sync::Arc::ptr_eq(&before[&key].columns, &after[&key].columns)
    };
    assert!(again.keys().all(|key| is_kept(&again, *key)));
    assert_eq!(again, before);
    let after = rows(true).tables(&before);
    assert!(!is_kept(&after, key(1, Protocol::Tcp)));
    assert!(is_kept(&after, key(3, Protocol::Tcp)));
    assert_eq!(after, rows(true).tables(&none), "as without them");
    let mut read = before.clone();
    for table in read.values_mut() {
        table.backends = None;
        table.columns = vec![0; table.columns.len()].into();
    }
    assert_eq!(
        rows(false).tables(&read),
        before,
        "the kernel's are not trusted"
    );
}
