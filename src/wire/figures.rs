//! A worker's figures on the wire, the last fields of a `Health` (docs/protocol.md): what its
//! runtime has counted and what the system tells of its process.
//!
//! Kinds go by name, and a histogram with as many buckets as its sender has. A reader passes over
//! kinds that it does not know and histograms of another shape than its own, so that either side
//! may be the newer one. Nothing is kept of what is not known, so what a peer sends decides nothing
//! about what it takes in memory.

use std::time::Duration;

use super::WireError;
use super::pack::reader::{Item, Reader};
use super::pack::shape::{Decode, Encode, FieldCount, array, fields, read_growing, skip_unknown};
use super::pack::writer::Writer;
use crate::base::labels::Label;
use crate::base::limits::BUSIEST_TOLD;
use crate::base::metrics::{Buckets, LATENCY_BOUNDS_US};
use crate::base::process_figures::ProcessFigures;
use crate::wire::data::{DbCall, DbFigures, RuntimeFigures, TenantId};

impl Encode for Buckets {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2);
        writer.array(self.counts().len());
        for count in self.counts() {
            writer.unsigned(*count);
        }
        writer.unsigned(self.sum_us());
    }
}

/// Those of another shape are read as nothing counted.
impl Decode for Buckets {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (mut counts, mut sum_us) = (Vec::new(), 0);
        fields(reader, &["counts", "sum_us"], FieldCount::Any, |field, reader| {
            match field {
                0 => counts = counts_of_ours(reader)?,
                _ => sum_us = Decode::decode(reader)?,
            }
            Ok(())
        })?;
        Ok(Buckets::from_parts(counts, sum_us).unwrap_or_default())
    }
}

/// The counts, if there are as many as in a histogram of ours; else none.
fn counts_of_ours(reader: &mut Reader<'_>) -> Result<Vec<u64>, WireError> {
    let len = array(reader)?;
    if len != LATENCY_BOUNDS_US.len() + 1 {
        (0..len).try_for_each(|_| skip_unknown(reader))?;
        return Ok(Vec::new());
    }
    (0..len).map(|_| Decode::decode(reader)).collect()
}

/// Writes what there is of each kind: a list of arrays that begin with the kind's name. What is as
/// at the beginning is left out.
fn write_kinds<K: Label>(
    writer: &mut Writer,
    is_there: impl Fn(K) -> bool,
    mut write: impl FnMut(&mut Writer, K),
) {
    let there: Vec<K> = K::ALL.iter().copied().filter(|kind| is_there(*kind)).collect();
    writer.array(there.len());
    for kind in there {
        write(writer, kind);
    }
}

/// Writes how many there are of each kind.
fn write_counts<K: Label>(writer: &mut Writer, count: impl Fn(K) -> u64) {
    write_kinds(
        writer,
        |kind| count(kind) > 0,
        |writer, kind| {
            writer.array(2);
            writer.text(kind.as_str());
            writer.unsigned(count(kind));
        },
    );
}

/// Reads such a list; `read` gets each kind that is known, and the reader at what follows its name.
fn read_kinds<K: Label>(
    reader: &mut Reader<'_>,
    values: usize,
    mut read: impl FnMut(&mut Reader<'_>, K) -> Result<(), WireError>,
) -> Result<(), WireError> {
    for _ in 0..array(reader)? {
        let len =
            array(reader)?.checked_sub(1).ok_or(WireError::Invalid("a figure without its kind"))?;
        let kind = match reader.item()? {
            Item::Str(name) | Item::Bin(name) => K::of_name(name),
            _ => return Err(WireError::Invalid("a kind that is not text")),
        };
        let known = kind.filter(|_| len >= values);
        if let Some(kind) = known {
            read(reader, kind)?;
        }
        let read = if known.is_some() { values } else { 0 };
        (read..len).try_for_each(|_| skip_unknown(reader))?;
    }
    Ok(())
}

/// Reads how many there are of each kind that is known.
fn read_counts<K: Label>(
    reader: &mut Reader<'_>,
    mut put: impl FnMut(K, u64),
) -> Result<(), WireError> {
    read_kinds(reader, 1, |reader, kind| {
        put(kind, Decode::decode(reader)?);
        Ok(())
    })
}

impl Encode for RuntimeFigures {
    fn encode(&self, writer: &mut Writer) {
        writer.array(17);
        for number in [
            self.evicted_vms,
            self.discarded_vms,
            self.waiting_events,
            self.coroutines,
            self.preemptions,
            self.panics,
            self.script_errors,
            self.large_answers,
            self.dropped_log_lines,
        ] {
            writer.unsigned(number);
        }
        self.running.encode(writer);
        self.wall.encode(writer);
        write_counts(writer, |budget| self.budget(budget));
        let is_called = |call: DbCall| *self.db(call) != DbFigures::default();
        write_kinds(writer, is_called, |writer, call| {
            let DbFigures { failed, took } = self.db(call);
            writer.array(3);
            writer.text(call.as_str());
            writer.unsigned(*failed);
            took.encode(writer);
        });
        self.busiest.encode(writer);
        writer.unsigned(self.busiest_us);
        write_counts(writer, |budget| self.warnings(budget));
        write_counts(writer, |kind| self.dropped(kind));
    }
}

impl Decode for RuntimeFigures {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut figures = RuntimeFigures::default();
        read_growing!(reader, figures:
            evicted_vms, discarded_vms, waiting_events, coroutines, preemptions, panics,
            script_errors, large_answers, dropped_log_lines, running, wall,
            budgets => read_counts(reader, |budget, count| *figures.budget_mut(budget) = count),
            db => read_kinds(reader, 2, |reader, call| {
                let (failed, took) = (Decode::decode(reader)?, Decode::decode(reader)?);
                *figures.db_mut(call) = DbFigures { failed, took };
                Ok(())
            }),
            busiest => busiest(reader).map(|busiest| figures.busiest = busiest),
            busiest_us,
            warnings => read_counts(reader, |budget, count| *figures.warnings_mut(budget) = count),
            dropped => read_counts(reader, |kind, count| *figures.dropped_mut(kind) = count),
        );
        Ok(figures)
    }
}

/// The busiest tenants, as many as a worker reports at most: by events and by time. What else a
/// peer sends is skipped.
fn busiest(reader: &mut Reader<'_>) -> Result<Vec<(TenantId, u64, u64)>, WireError> {
    let len = array(reader)?;
    let kept: Vec<_> =
        (0..len.min(2 * BUSIEST_TOLD)).map(|_| Decode::decode(reader)).collect::<Result<_, _>>()?;
    (kept.len()..len).try_for_each(|_| skip_unknown(reader))?;
    Ok(kept)
}

impl Encode for ProcessFigures {
    fn encode(&self, writer: &mut Writer) {
        writer.array(6);
        writer.unsigned(u64::try_from(self.cpu.as_micros()).unwrap_or(u64::MAX));
        for number in
            [self.resident_bytes, self.open_fds, self.max_fds, self.threads, self.started_unix_ms]
        {
            writer.unsigned(number);
        }
    }
}

impl Decode for ProcessFigures {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut figures = ProcessFigures::default();
        read_growing!(reader, figures:
            cpu_us => u64::decode(reader).map(|us| figures.cpu = Duration::from_micros(us)),
            resident_bytes, open_fds, max_fds, threads, started_unix_ms,
        );
        Ok(figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::{Budget, Dropped};
    use crate::wire::message::Health;

    fn text(writer: &mut Writer, text: &str) {
        writer.text(text);
    }

    #[test]
    fn a_histogram_of_another_shape_is_passed_over() {
        for len in [0, 1, LATENCY_BOUNDS_US.len(), LATENCY_BOUNDS_US.len() + 2, 5000] {
            let mut writer = Writer::default();
            writer.array(2);
            writer.array(len);
            (0..len).for_each(|_| writer.unsigned(7));
            writer.unsigned(9);
            assert_eq!(Buckets::from_bytes(&writer.into_bytes()), Ok(Buckets::default()), "{len}");
        }
        let mut ours = Writer::default();
        ours.array(3);
        ours.array(LATENCY_BOUNDS_US.len() + 1);
        (0..=LATENCY_BOUNDS_US.len()).for_each(|_| ours.unsigned(7));
        ours.unsigned(9);
        // What a newer peer adds.
        text(&mut ours, "more");
        let read = Buckets::from_bytes(&ours.into_bytes()).expect("readable");
        assert_eq!((read.counts()[3], read.sum_us()), (7, 9));
        // A claim of a length that is not there is an error and no allocation.
        assert_eq!(Buckets::from_bytes(b"\x92\xdd\xff\xff\xff\xff\x01"), Err(WireError::Truncated));
    }

    #[test]
    fn unknown_kinds_and_added_fields_are_passed_over() {
        let mut writer = Writer::default();
        writer.array(4);
        for (name, values) in [("patience", 1), ("memory", 1), ("spawns", 3), ("coroutines", 0)] {
            writer.array(1 + values);
            text(&mut writer, name);
            (0..values).for_each(|_| writer.unsigned(5));
        }
        let bytes = writer.into_bytes();
        let mut read = Vec::new();
        let mut reader = Reader::new(&bytes);
        read_kinds(&mut reader, 1, |reader, budget: Budget| {
            read.push((budget, u64::decode(reader)?));
            Ok(())
        })
        .expect("readable");
        assert_eq!(reader.end(), Ok(()));
        assert_eq!(read, [(Budget::Memory, 5), (Budget::Spawns, 5)]);
        assert!(RuntimeFigures::from_bytes(b"\x91\xa1x").is_err());
    }

    #[test]
    fn busy_tenants_beyond_what_a_worker_reports_are_skipped() {
        let mut figures = RuntimeFigures::default();
        figures.busiest = (0..1000).map(|number| (TenantId::Guild(number), 1, 2)).collect();
        figures.busiest_us = 7;
        let read = RuntimeFigures::from_bytes(&figures.to_bytes()).expect("readable");
        assert_eq!(read.busiest, figures.busiest[..2 * BUSIEST_TOLD]);
        assert_eq!(read.busiest_us, 7);
    }

    #[test]
    fn the_figures_of_a_worker_fit_into_a_few_kilobytes() {
        let mut figures = RuntimeFigures::default();
        let all = Buckets::from_parts(vec![u64::MAX; LATENCY_BOUNDS_US.len() + 1], u64::MAX)
            .expect("our shape");
        (figures.running, figures.wall) = (all.clone(), all.clone());
        for budget in Budget::ALL {
            *figures.budget_mut(budget) = u64::MAX;
            *figures.warnings_mut(budget) = u64::MAX - 1;
        }
        Dropped::ALL.into_iter().for_each(|kind| *figures.dropped_mut(kind) = u64::MAX);
        DbCall::ALL.into_iter().for_each(|call| figures.db_mut(call).took = all.clone());
        let health = Health { figures: Some(Box::new(figures)), ..Health::default() };
        let bytes = health.to_bytes();
        assert!(bytes.len() < 4096, "{}", bytes.len());
        assert_eq!(Health::from_bytes(&bytes), Ok(health));
    }
}
