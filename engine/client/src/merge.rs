//! Answers of several targets made into one. Pure functions; with one target each returns what it was given.

use daos_types::rpc::{
    CheckReport, Cursor, DamagedData, ExtentInfo, Fetched, Listed, ListedDkey, ObjectInfo,
    TargetUsage,
};
use daos_types::{Error, ObjectId, Result};

/// Answers to one part of a fetch. Only an object's record lies on more than one target.
pub(crate) fn fetched(mut answers: Vec<Fetched>) -> Result<Fetched> {
    if answers.len() == 1 {
        return Ok(answers.remove(0));
    }
    let mut total: Option<ObjectInfo> = None;
    for answer in answers {
        let Fetched::Object(info) = answer else {
            return Err(Error::Invalid("only an object lies on several targets"));
        };
        total = match (total, info) {
            (Some(a), Some(b)) => Some(ObjectInfo {
                data_epoch: a.data_epoch.max(b.data_epoch),
                array_end: a.array_end.max(b.array_end),
                stored_bytes: a.stored_bytes + b.stored_bytes,
            }),
            (a, b) => a.or(b),
        };
    }
    Ok(Fetched::Object(total))
}

/// Dkeys of several targets by cursor. Nothing comes that a target might still have something before.
pub(crate) fn dkeys(mut replies: Vec<Listed>, entries_max: u32) -> Listed {
    if replies.len() == 1 {
        return replies.remove(0);
    }
    let (entries, end) = merged(
        replies,
        entries_max,
        |listed| listed.dkeys,
        |entry: &ListedDkey| entry.cursor.clone(),
    );
    Listed { dkeys: entries, objects: Vec::new(), end }
}

/// Object ids of several targets, each once.
pub(crate) fn objects(mut replies: Vec<Listed>, entries_max: u32) -> Listed {
    if replies.len() == 1 {
        return replies.remove(0);
    }
    let key = |object: &ObjectId| Cursor::Key(bytes::Bytes::copy_from_slice(&object.to_bytes()));
    let (mut entries, end) = merged(replies, entries_max, |listed| listed.objects, key);
    entries.dedup();
    Listed { dkeys: Vec::new(), objects: entries, end }
}

/// Entries in the order of their cursors and whether nothing comes after them. Entries with the same cursor stay together.
fn merged<T>(
    replies: Vec<Listed>,
    entries_max: u32,
    entries_of: impl Fn(Listed) -> Vec<T>,
    cursor: impl Fn(&T) -> Cursor,
) -> (Vec<T>, bool) {
    let mut known_to: Option<Cursor> = None;
    let mut all: Vec<T> = Vec::new();
    let mut end = true;
    for reply in replies {
        let unfinished = !reply.end;
        let entries = entries_of(reply);
        if let Some(last) = entries.last().filter(|_| unfinished) {
            let last = cursor(last);
            known_to = Some(known_to.map_or(last.clone(), |known| known.min(last)));
            end = false;
        }
        all.extend(entries);
    }
    all.sort_by_cached_key(&cursor);
    let known = |entry: &T| known_to.as_ref().is_none_or(|known_to| cursor(entry) <= *known_to);
    let mut keep = all.partition_point(known);
    if keep > entries_max as usize {
        keep = entries_max as usize;
        while keep < all.len() && cursor(&all[keep]) == cursor(&all[keep - 1]) {
            keep += 1;
        }
    }
    end &= keep == all.len();
    all.truncate(keep);
    (all, end)
}

/// Extents of several targets by place. Nothing comes that a target might still have something before.
pub(crate) fn extents(mut replies: Vec<Vec<ExtentInfo>>, extents_max: u32) -> Vec<ExtentInfo> {
    if replies.len() == 1 {
        return replies.remove(0);
    }
    let place = |extent: &ExtentInfo| (extent.dkey, extent.offset);
    let full = replies.iter().filter(|reply| reply.len() >= extents_max as usize);
    let known_to = full.filter_map(|reply| reply.last().map(place)).min();
    let mut all: Vec<ExtentInfo> = replies.concat();
    all.sort_by_key(place);
    all.retain(|extent| known_to.is_none_or(|known_to| place(extent) <= known_to));
    all.truncate(extents_max as usize);
    all
}

pub(crate) fn usages(usages: Vec<TargetUsage>) -> TargetUsage {
    let mut total = TargetUsage::default();
    for usage in usages {
        total.capacity += usage.capacity;
        total.free += usage.free;
        total.reserve += usage.reserve;
        total.metadata += usage.metadata;
        total.latched = total.latched.or(usage.latched);
        for (name, count) in usage.counters {
            match total.counters.iter_mut().find(|(there, _)| *there == name) {
                Some((_, total)) => *total += count,
                None => total.counters.push((name, count)),
            }
        }
    }
    total
}

pub(crate) fn reports(reports: Vec<CheckReport>) -> CheckReport {
    let mut total = CheckReport::default();
    for (target, report) in reports.iter().enumerate() {
        total.objects += report.objects;
        total.keys += report.keys;
        total.extents += report.extents;
        total.buckets += report.buckets;
        total.blocks += report.blocks;
        let before = total.findings.len();
        total.data.extend(report.data.iter().map(|data| {
            let finding = before + data.finding;
            DamagedData { finding, ..data.clone() }
        }));
        total.mended.extend(report.mended.iter().cloned());
        total.unmended.extend(report.unmended.iter().cloned());
        let findings = report.findings.iter();
        total.findings.extend(findings.map(|finding| match reports.len() {
            1 => finding.clone(),
            _ => format!("target {target}: {finding}"),
        }));
    }
    total
}
