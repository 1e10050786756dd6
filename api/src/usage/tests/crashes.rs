//! What a killed process or a stopped machine leaves behind, and what is no crash but damage.

use super::*;

#[test]
fn an_intent_without_an_end_is_open_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    assert_eq!(journal.recover().last_life, LastLife::Unknown);
    let one = journal.intent(intent(1)).unwrap();
    let two = journal.intent(intent(2)).unwrap();
    one.settle(&settled(10)).unwrap();
    killed(journal, vec![two]);
    let again = open(dir.path());
    assert_eq!(left(&again), [intent(2)]);
    assert_eq!(again.recover().last_life, LastLife::SameBoot);
    drop(again);
    let rebooted = Journal::open(dir.path(), &options("another boot")).unwrap();
    assert_eq!(rebooted.recover().last_life, LastLife::OtherBoot);
    assert!(!rebooted.recover().open[0].same_boot);
}

#[test]
fn a_dropped_call_is_cut_and_charged_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    drop(journal.intent(intent(1)).unwrap());
    let mut ends = Vec::new();
    journal.settled_by(Incarnation(4), |intent, settled| ends.push((intent.clone(), *settled))).unwrap();
    let [(of, end)] = &ends[..] else { panic!("{ends:?}") };
    assert_eq!((of, end.status, end.charged_tokens), (&intent(1), Status::Cut, 1_001));
    journal.settled_by(Incarnation(5), |_, _| panic!("of another life")).unwrap();
    drop(journal);
    assert!(left(&open(dir.path())).is_empty());
}

#[test]
fn what_was_written_off_is_not_open_again() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let calls = (1..=2).map(|n| journal.intent(intent(n)).unwrap()).collect();
    killed(journal, calls);
    let journal = open(dir.path());
    journal.write_off(&intent(1)).unwrap();
    journal.write_off(&intent(1)).unwrap();
    assert_eq!(left(&journal), [intent(2)]);
    drop(journal);
    let journal = open(dir.path());
    assert_eq!(left(&journal), [intent(2)]);
    let mut ends = 0;
    journal.settled_by(Incarnation(4), |_, _| ends += 1).unwrap();
    assert_eq!(ends, 1);
}

#[test]
fn the_last_record_may_be_cut_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let mut calls: Vec<_> = (1..=2).map(|n| journal.intent(intent(n)).unwrap()).collect();
    let whole = journal.writer().end().offset;
    calls.pop().unwrap().settle(&settled(5)).unwrap();
    let all = journal.writer().end().offset;
    killed(journal, calls);
    for boot in ["boot", "another boot"] {
        for end in whole..=all {
            let dir = copy(dir.path());
            fs::OpenOptions::new().write(true).open(last_segment(dir.path())).unwrap().set_len(end).unwrap();
            let expected = if end == all { vec![intent(1)] } else { vec![intent(1), intent(2)] };
            for _ in 0..2 {
                let scan = scan::scan(dir.path(), boot, Position::default()).unwrap();
                let mut open: Vec<_> = scan.open.into_values().map(|(left, _)| left.intent).collect();
                open.sort_by_key(|intent| intent.call);
                assert_eq!(open, expected, "cut at {end}");
            }
            assert!(fs::metadata(last_segment(dir.path())).unwrap().len() >= whole);
        }
    }
}

#[test]
fn a_header_may_be_cut_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let header = fs::metadata(last_segment(dir.path())).unwrap().len();
    for end in 0..header {
        let dir = copy(dir.path());
        fs::OpenOptions::new().write(true).open(last_segment(dir.path())).unwrap().set_len(end).unwrap();
        let journal = open(dir.path());
        killed(journal.clone(), vec![journal.intent(intent(1)).unwrap()]);
        drop(journal);
        assert_eq!(left(&open(dir.path())), [intent(1)]);
    }
}

#[test]
fn after_a_power_failure_unsynced_garbage_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let call = journal.intent(intent(1)).unwrap();
    let whole = usize::try_from(journal.writer().end().offset).unwrap();
    let unsynced: Vec<_> = (2..5).map(|n| journal.intent(intent(n)).unwrap()).collect();
    killed(journal, unsynced.into_iter().chain([call]).collect());
    let bytes = fs::read(last_segment(dir.path())).unwrap();
    for spoil in [|byte: &mut u8| *byte = 0, |byte: &mut u8| *byte ^= 0x55] {
        let dir = copy(dir.path());
        let mut spoiled = bytes.clone();
        spoiled[whole..whole + 20].iter_mut().for_each(spoil);
        fs::write(last_segment(dir.path()), &spoiled).unwrap();
        let journal = Journal::open(dir.path(), &options("another boot")).unwrap();
        assert_eq!(left(&journal), [intent(1)]);
    }
}

#[test]
fn damage_that_no_crash_explains_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let start = usize::try_from(journal.writer().end().offset).unwrap();
    let calls = (1..=3).map(|n| journal.intent(intent(n)).unwrap()).collect();
    killed(journal, calls);
    let mut bytes = fs::read(last_segment(dir.path())).unwrap();
    bytes[start + 30] ^= 1;
    fs::write(last_segment(dir.path()), &bytes).unwrap();
    let error = Journal::open(dir.path(), &options("boot")).unwrap_err();
    assert!(error.to_string().contains(&format!("000000000001.journal is damaged at byte {start}")), "{error}");
    assert_eq!(fs::read(last_segment(dir.path())).unwrap(), bytes);
}

#[test]
fn damage_before_what_was_synced_is_refused_in_another_boot_too() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let start = usize::try_from(journal.writer().end().offset).unwrap();
    let mut calls = vec![journal.intent(intent(1)).unwrap()];
    while journal.writer().synced() != journal.writer().end().offset {
        std::thread::yield_now();
    }
    calls.push(journal.intent(intent(2)).unwrap());
    killed(journal, calls);
    let mut bytes = fs::read(last_segment(dir.path())).unwrap();
    bytes[start + 30] ^= 1;
    fs::write(last_segment(dir.path()), &bytes).unwrap();
    let error = Journal::open(dir.path(), &options("another boot")).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
}

#[test]
fn a_damaged_or_missing_segment_in_the_middle_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1..=3 {
        let journal = open(dir.path());
        killed(journal.clone(), vec![journal.intent(intent(n)).unwrap()]);
    }
    let middle = segment::path(dir.path(), 2);
    let bytes = fs::read(&middle).unwrap();
    fs::write(&middle, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(Journal::open(dir.path(), &options("x")), Err(JournalError::Damaged { .. })));
    fs::remove_file(&middle).unwrap();
    let error = Journal::open(dir.path(), &options("x")).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    assert!(matches!(Journal::open(dir.path(), &options("boot")), Err(JournalError::Busy(_))));
    drop(journal);
    open(dir.path());
}

#[test]
fn sixty_four_writers_lose_and_mix_up_nothing_over_many_segments() {
    let dir = tempfile::tempdir().unwrap();
    let small = JournalOptions { segment_bytes: 8 * 1024, ..options("boot") };
    let journal = Journal::open(dir.path(), &small).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..64u8 {
            let journal = &journal;
            scope.spawn(move || {
                for number in 0..50u8 {
                    let mut of = intent(number);
                    of.call.request.0[0] = writer;
                    let call = journal.intent(of).unwrap();
                    match number % 10 {
                        0 => call.abandon(),
                        _ => call.settle(&settled(number.into())).unwrap(),
                    }
                }
            });
        }
    });
    killed(journal, Vec::new());
    let again = Journal::open(dir.path(), &small).unwrap();
    assert!(segment::list(dir.path()).unwrap().len() > 50);
    assert_eq!(left(&again).len(), 64 * 5);
    let mut ended = BTreeSet::new();
    again.settled_by(Incarnation(4), |intent, _| assert!(ended.insert(intent.call))).unwrap();
    assert_eq!(ended.len(), 64 * 45);
}

#[test]
fn two_records_cost_little() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let start = raft::clock::boot_us();
    for number in 0..2_000u32 {
        let mut of = intent(1);
        of.call.request.0[..4].copy_from_slice(&number.to_le_bytes());
        journal.intent(of).unwrap().settle(&settled(1)).unwrap();
    }
    let each_us = (raft::clock::boot_us() - start) / 2_000;
    // About 10 us when optimised; the bound is for a gross mistake, such as a sync per record.
    assert!(each_us < 200, "{each_us} us for an intent and its end");
}
