//! From the journal to rows: each once, over crashes of either side.

use super::*;
use tokio_util::sync::CancellationToken;

async fn database(dir: &Path) -> Database {
    Database::open(&format!("sqlite:{}/usage.db", dir.display())).await.unwrap()
}

async fn rows(database: &Database) -> Vec<UsageRow> {
    let all = UsageQuery { from_wall_us: 0, to_wall_us: u64::MAX, after: None, limit: PAGE_MAX };
    usage_page(database, &all).await.unwrap()
}

#[tokio::test]
async fn a_call_becomes_one_row_with_all_that_is_known_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, database) = (open(&dir.path().join("journal")), database(dir.path()).await);
    let mut of = intent(1);
    of.user = Some([2; 16]);
    journal.intent(of.clone()).unwrap().settle(&Settled { streamed: true, ..settled(u64::MAX) }).unwrap();
    assert_eq!(Shipper::new(journal, database.clone()).ship().await.unwrap(), 1);
    let expected = UsageRow {
        request_id: of.call.to_string(),
        status: "ok".into(),
        started_at: of.started_wall_us,
        key_id: "09".repeat(16),
        user_id: Some("02".repeat(16)),
        team_id: None,
        pool: "pool".into(),
        model: "model".into(),
        provider: "target".into(),
        priority: 5,
        reserved_tokens: 1_001,
        prompt_tokens: 1,
        completion_tokens: 2,
        charged_tokens: i64::MAX.unsigned_abs(),
        cost_nano_usd: None,
        http_status: 200,
        streamed: true,
        latency_us: 3,
        queue_wait_us: 4,
    };
    assert_eq!(rows(&database).await, [expected]);
}

#[tokio::test]
async fn rows_are_shipped_summed_and_removed_alike_on_both_databases() {
    let dir = tempfile::tempdir().unwrap();
    let server = support::PostgresServer::start().unwrap();
    let postgres = Database::open(&server.create("usage").unwrap()).await.unwrap();
    for (name, database) in [("sqlite", database(dir.path()).await), ("postgres", postgres)] {
        let journal = open(&dir.path().join(name));
        for number in 0..5 {
            let mut of = intent(number);
            of.user = (number > 0).then_some([number % 2; 16]);
            of.model = if number == 4 { "gpt\0x".into() } else { "gpt".into() };
            of.started_wall_us = 1_790_000_000_000_000 + u64::from(number) * 43_200_000_000;
            let tokens = if number == 4 { u64::MAX } else { number.into() };
            journal.intent(of).unwrap().settle(&settled(tokens)).unwrap();
        }
        Shipper::new(journal.clone(), database.clone()).ship().await.unwrap();
        let sums = async |by| -> Vec<(String, u64, u64)> {
            let sums = usage_sums(&database, by, 0, u64::MAX).await.unwrap();
            sums.into_iter().map(|sum| (sum.of, sum.calls, sum.charged_tokens)).collect()
        };
        let much = 1_000_000_000_000;
        assert_eq!(sums(By::Model).await, [("gpt\u{fffd}x".to_owned(), 1, much), ("gpt".to_owned(), 4, 6)], "{name}");
        let [zero, one] = [0, 1].map(|byte: u8| hex::encode([byte; 16]));
        assert_eq!(sums(By::User).await, [(zero, 2, much + 2), (one, 2, 4), (String::new(), 1, 0)], "{name}");
        let days: Vec<_> = sums(By::Day).await.into_iter().map(|(day, calls, _)| (day, calls)).collect();
        assert_eq!(days, [("2026-09-21".to_owned(), 1), ("2026-09-22".to_owned(), 2), ("2026-09-23".to_owned(), 2)]);
        assert_eq!(summary::remove_before(&database, 1_790_000_000_000_000 + 86_400_000_000).await.unwrap(), 2);
        assert_eq!(rows(&database).await.len(), 3);
    }
}

#[tokio::test]
async fn shipping_again_from_any_position_adds_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let database = database(dir.path()).await;
    let path = dir.path().join("journal");
    let small = JournalOptions { segment_bytes: 1_000, ..options("boot") };
    for life in 0..4u8 {
        let journal = Journal::open(&path, &small).unwrap();
        for number in 0..10 {
            journal.intent(intent(life * 10 + number)).unwrap().settle(&settled(number.into())).unwrap();
        }
        let mut shipper = Shipper::new(journal.clone(), database.clone());
        assert!(shipper.ship().await.unwrap() >= 10);
        assert_eq!(shipper.ship().await.unwrap(), 0);
        if life % 2 == 0 {
            position::reset(&path).unwrap();
        }
        let again = Shipper::new(journal, database.clone()).ship().await.unwrap();
        assert_eq!(again, if life % 2 == 0 { usize::from(life + 1) * 10 } else { 0 });
    }
    let rows = rows(&database).await;
    assert_eq!(rows.len(), 40);
    assert!(rows.iter().enumerate().all(|(place, row)| row.charged_tokens == place as u64 % 10));
}

#[tokio::test]
async fn a_lost_call_is_one_row_at_what_it_reserved_over_repeated_crashes() {
    let dir = tempfile::tempdir().unwrap();
    let database = database(dir.path()).await;
    let path = dir.path().join("journal");
    let journal = open(&path);
    let calls = (1..=3).map(|n| journal.intent(intent(n)).unwrap()).collect();
    killed(journal, calls);
    // Three lives that die right after the first, the second and the last write-off, before anything is shipped.
    for life in 0..3 {
        let journal = open(&path);
        let open = left(&journal);
        assert_eq!(open.len(), 3 - life);
        journal.write_off(&open[0]).unwrap();
        journal.write_off_rest(Incarnation(4), "pool", 77).unwrap();
        killed(journal, Vec::new());
    }
    let journal = open(&path);
    assert!(left(&journal).is_empty());
    Shipper::new(journal, database.clone()).ship().await.unwrap();
    let mut charged: Vec<_> = rows(&database).await.into_iter().map(|row| (row.status, row.charged_tokens)).collect();
    charged.sort_unstable();
    let lost = |tokens| ("lost".to_owned(), tokens);
    assert_eq!(charged, [lost(77), lost(1_001), lost(1_002), lost(1_003)]);
}

#[tokio::test]
async fn an_end_that_was_shipped_but_lost_from_the_journal_stays_ok() {
    let dir = tempfile::tempdir().unwrap();
    let database = database(dir.path()).await;
    let path = dir.path().join("journal");
    let journal = open(&path);
    let call = journal.intent(intent(1)).unwrap();
    let before = journal.writer().end().offset;
    call.settle(&settled(5)).unwrap();
    Shipper::new(journal.clone(), database.clone()).ship().await.unwrap();
    killed(journal, Vec::new());
    fs::OpenOptions::new().write(true).open(last_segment(&path)).unwrap().set_len(before).unwrap();
    let journal = Journal::open(&path, &options("another boot")).unwrap();
    journal.write_off(&intent(1)).unwrap();
    journal.intent(intent(2)).unwrap().settle(&settled(6)).unwrap();
    Shipper::new(journal, database.clone()).ship().await.unwrap();
    let charged: Vec<_> = rows(&database).await.into_iter().map(|row| (row.status, row.charged_tokens)).collect();
    assert_eq!(charged, [("ok".to_owned(), 5), ("ok".to_owned(), 6)]);
}

#[tokio::test]
async fn rows_wait_for_a_database_that_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = open(&path);
    let down = database(dir.path()).await;
    down.close().await;
    let mut shipper = Shipper::new(journal.clone(), down);
    journal.intent(intent(1)).unwrap().settle(&settled(1)).unwrap();
    for _ in 0..2 {
        assert!(matches!(shipper.ship().await, Err(ShipError::Database(_))));
    }
    assert_eq!(position::load(&path), Position::default());
    let up = database(dir.path()).await;
    assert_eq!(Shipper::new(journal, up.clone()).ship().await.unwrap(), 1);
    assert_eq!(rows(&up).await.len(), 1);
}

#[tokio::test]
async fn a_running_shipper_ships_what_is_there_when_it_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, database) = (open(&dir.path().join("journal")), database(dir.path()).await);
    let stop = CancellationToken::new();
    let running = tokio::spawn(Shipper::new(journal.clone(), database.clone()).run(stop.clone()));
    journal.intent(intent(1)).unwrap().settle(&settled(1)).unwrap();
    let shipped = async {
        while rows(&database).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), shipped).await.unwrap();
    for number in 2..=200 {
        journal.intent(intent(number)).unwrap().settle(&settled(1)).unwrap();
    }
    stop.cancel();
    running.await.unwrap();
    assert_eq!(rows(&database).await.len(), 200);
}

#[tokio::test]
async fn shipped_segments_are_trimmed_unless_a_call_in_them_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let database = database(dir.path()).await;
    let path = dir.path().join("journal");
    let small = JournalOptions { segment_bytes: 1_000, ..options("boot") };
    let journal = Journal::open(&path, &small).unwrap();
    let mut shipper = Shipper::new(journal.clone(), database.clone());
    let long = journal.intent(intent(200)).unwrap();
    for number in 0..50 {
        journal.intent(intent(number)).unwrap().settle(&settled(1)).unwrap();
    }
    let all = segment::list(&path).unwrap();
    shipper.ship().await.unwrap();
    assert_eq!(segment::list(&path).unwrap(), all, "all are young");
    journal.writer().age();
    assert_eq!(journal.writer().trim(position::load(&path)).unwrap(), 0, "a call is open in the first");
    long.settle(&settled(2)).unwrap();
    shipper.ship().await.unwrap();
    assert_eq!(segment::list(&path).unwrap(), [journal.writer().end().segment]);
    journal.intent(intent(201)).unwrap().settle(&settled(3)).unwrap();
    drop(shipper);
    drop(journal);
    let journal = Journal::open(&path, &small).unwrap();
    Shipper::new(journal, database.clone()).ship().await.unwrap();
    assert_eq!(rows(&database).await.len(), 52);
}

#[tokio::test]
async fn rows_are_read_in_pages_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, database) = (open(&dir.path().join("journal")), database(dir.path()).await);
    for number in 0..10 {
        journal.intent(intent(number)).unwrap().settle(&settled(number.into())).unwrap();
    }
    Shipper::new(journal, database.clone()).ship().await.unwrap();
    let (from_wall_us, to_wall_us) = (1_000_002, 1_000_009);
    let mut query = UsageQuery { from_wall_us, to_wall_us, after: None, limit: 3 };
    let mut seen = Vec::new();
    loop {
        let page = usage_page(&database, &query).await.unwrap();
        let Some(last) = page.last() else { break };
        query.after = Some(last.request_id.clone());
        seen.extend(page.iter().map(|row| row.charged_tokens));
    }
    assert_eq!(seen, [2, 3, 4, 5, 6, 7, 8]);
    assert!(usage_row_exists(&database, &intent(3).call.to_string()).await.unwrap());
    assert!(!usage_row_exists(&database, "req_none").await.unwrap());
}

#[tokio::test]
async fn a_call_that_was_never_made_has_no_row_and_is_not_left_open() {
    let dir = tempfile::tempdir().unwrap();
    let database = database(dir.path()).await;
    let path = dir.path().join("journal");
    let journal = open(&path);
    journal.intent(intent(1)).unwrap().void().unwrap();
    assert_eq!(Shipper::new(journal.clone(), database.clone()).ship().await.unwrap(), 0);
    drop(journal);
    assert!(left(&open(&path)).is_empty());
    assert!(rows(&database).await.is_empty());
}
