//! Tables and CSV: the columns, their positions, and the columns of times.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kernel_tests::cli::{Output, Tool, tcptools};
use kernel_tests::netns::Netns;
use kernel_tests::requirements::{Feature, needs};
use kernel_tests::runner::{Outcome, Test, test};
use kernel_tests::stage::{End, Session, Stage, Via};
use kernel_tests::traffic;

pub const TESTS: &[Test] = &[
    test("cli::life_table", || table("tcplife", &[], &life(10, 15, 5))),
    test("cli::life_table_wide", || table("tcplife", &["-w"], &with_ip(life(16, 39, 6)))),
    test("cli::life_table_failed", || {
        let mut columns = life(10, 15, 5);
        columns.pop();
        columns.extend([("MS", 8), ("OUTCOME", 0)]);
        table("tcplife", &["--failed"], &columns)
    }),
    test("cli::states_table", || table("tcpstates", &[], &states(10, 15))),
    test("cli::states_table_wide", || table("tcpstates", &["-w"], &with_ip(states(16, 39)))),
    test("cli::csv", csv),
    test("cli::time_of_day_is_local", time_of_day_is_local),
    test("cli::seconds_since_the_first_row", seconds_since_the_first_row),
];

/// A heading and the width of its column; negative if the column is padded on the left.
type Column = (&'static str, isize);

fn life(comm: isize, address: isize, kib: isize) -> Vec<Column> {
    vec![
        ("PID", 5),
        ("COMM", comm),
        ("LADDR", address),
        ("LPORT", 5),
        ("RADDR", address),
        ("RPORT", 5),
        ("TX_KB", -kib),
        ("RX_KB", -kib),
        ("MS", 0),
    ]
}

fn states(comm: isize, address: isize) -> Vec<Column> {
    vec![
        ("SKADDR", 16),
        ("C-PID", 5),
        ("C-COMM", comm),
        ("LADDR", address),
        ("LPORT", 5),
        ("RADDR", address),
        ("RPORT", 5),
        ("OLDSTATE", 11),
        ("->", 2),
        ("NEWSTATE", 11),
        ("MS", 0),
    ]
}

/// Wide tables have the column IP before the addresses.
fn with_ip(mut columns: Vec<Column>) -> Vec<Column> {
    let at = columns.iter().position(|(heading, _)| *heading == "LADDR").expect("addresses");
    columns.insert(at, ("IP", 2));
    columns
}

/// A line of a table: at least one space between columns, none at the end. A cell that is wider
/// than its column widens the column for all later lines.
fn line(columns: &mut [Column], cells: &[&str]) -> String {
    let mut line = String::new();
    for ((_, width), cell) in columns.iter_mut().zip(cells) {
        let wider = isize::try_from(cell.len()).expect("a short cell").max(width.abs());
        *width = wider * width.signum();
        let wide = width.unsigned_abs();
        let padded = if *width < 0 { format!("{cell:>wide$} ") } else { format!("{cell:<wide$} ") };
        line.push_str(&padded);
    }
    line.trim_end().to_owned()
}

/// Starts a tool on the sockets of this namespace, with a time zone, and waits until it is
/// attached.
#[track_caller]
fn start(tool: &str, options: &[&str], zone: &str) -> Tool {
    let netns = Netns::current().inode().to_string();
    let mut command = tcptools([&[tool, "-v", "--netns", &netns][..], options].concat());
    command.env("TZ", zone);
    let mut started = Tool::spawn(command);
    started.wait_attached(tool);
    started
}

/// Has a tool watch a session over IPv4, and one whose client has addresses too wide for a narrow
/// column.
#[track_caller]
fn watch(mut tool: Tool, rows: usize) -> (Output, Vec<Session>) {
    let sessions: Vec<Session> = [Via::V4, Via::MappedClient]
        .map(|via| traffic::server_closes_first(&mut Stage::new(via)))
        .into_iter()
        .collect();
    tool.wait_for("the rows", |seen| seen.stdout.lines().count() > rows);
    let output = tool.stop();
    output.assert_code(0).assert_complete_lines();
    (output, sessions)
}

/// How many rows a tool prints in [`watch`]: one for each end, or one for each state change,
/// including those of the two listeners.
fn rows(tool: &str) -> usize {
    if tool == "tcplife" { 4 } else { 20 + 2 }
}

/// The cells of each row, without the headings. Names in these tests have no spaces.
fn cells(output: &Output) -> Vec<Vec<&str>> {
    output.stdout.lines().skip(1).map(|line| line.split_ascii_whitespace().collect()).collect()
}

/// The cells under these headings.
fn pick<'a>(columns: &[&str], row: &[&'a str], headings: &[&str]) -> Vec<&'a str> {
    let at = |heading: &&str| columns.iter().position(|c| c == heading).expect("a column");
    headings.iter().map(|heading| row[at(heading)]).collect()
}

#[track_caller]
fn table(tool: &str, options: &[&str], columns: &[Column]) -> Outcome {
    needs(Feature::Ipv6)?;
    Netns::enter_new();
    let (output, sessions) = watch(start(tool, options, "UTC"), rows(tool));
    let mut columns = columns.to_vec();
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    let mut lines = output.stdout.lines();
    assert_eq!(lines.next(), Some(&*line(&mut columns, &headings)), "{output}");
    for (cells, seen) in cells(&output).iter().zip(lines) {
        assert_eq!(cells.len(), columns.len(), "one cell for each column: {seen}\n{output}");
        assert_eq!(seen, line(&mut columns, cells), "the places of the columns\n{output}");
    }
    for end in sessions.iter().flat_map(|session| &session.ends) {
        assert_shown(&output, &headings, &cells(&output), end);
    }
    Ok(())
}

/// The last row of an end must have its facts.
#[track_caller]
fn assert_shown(output: &Output, headings: &[&str], rows: &[Vec<&str>], end: &End) {
    let text = |address: SocketAddr| [address.ip().to_string(), address.port().to_string()];
    let want = [text(end.local), text(end.remote)].concat();
    let is_end = |row: &&Vec<&str>| pick(headings, row, &["LADDR", "LPORT", "RADDR", "RPORT"]) == want;
    let row = rows.iter().rfind(is_end).unwrap_or_else(|| panic!("no row of {end:?}\n{output}"));
    let states = headings.contains(&"NEWSTATE");
    let (pid, comm) = if states { ("C-PID", "C-COMM") } else { ("PID", "COMM") };
    // The owner of the last state change is tested elsewhere: in a soft interrupt it is unknown.
    let owned =
        end.owners.iter().any(|who| pick(headings, row, &[pid, comm]) == [&*who.pid.to_string(), &who.comm]);
    assert!(owned || states, "the owner of {end:?}\n{output}");
    let digits = if states {
        assert_eq!(pick(headings, row, &["OLDSTATE", "NEWSTATE"])[1], "CLOSE", "{output}");
        3
    } else {
        let kib = [end.tx / 1024, end.rx / 1024].map(|kib| kib.to_string());
        assert_eq!(pick(headings, row, &["TX_KB", "RX_KB"]), kib, "{end:?}\n{output}");
        2
    };
    if headings.contains(&"IP") {
        let version = if end.local.is_ipv4() { "4" } else { "6" };
        assert_eq!(pick(headings, row, &["IP"]), [version], "{end:?}\n{output}");
    }
    if headings.contains(&"OUTCOME") {
        assert_eq!(pick(headings, row, &["OUTCOME"]), [end.ending.word()], "{end:?}\n{output}");
    }
    assert_number(pick(headings, row, &["MS"])[0], digits, output);
}

/// A number with this many digits after the point.
#[track_caller]
pub fn assert_number(text: &str, digits: usize, output: &Output) -> f64 {
    let right = text.split_once('.').is_some_and(|(_, fraction)| fraction.len() == digits);
    match text.parse() {
        Ok(number) if right => number,
        _ => panic!("{text:?} is not a number with {digits} digits after the point\n{output}"),
    }
}

/// `-s`: headings and rows of the same fields, including IP, without padding.
fn csv() -> Outcome {
    const HEADINGS: [(&str, &str); 2] = [
        ("tcplife", "TIME,TIME(s),PID,COMM,IP,LADDR,LPORT,RADDR,RPORT,TX_KB,RX_KB,MS"),
        ("tcpstates", "TIME,TIME(s),SKADDR,C-PID,C-COMM,IP,LADDR,LPORT,RADDR,RPORT,OLDSTATE,NEWSTATE,MS"),
    ];
    needs(Feature::Ipv6)?;
    for (tool, heading) in HEADINGS {
        Netns::enter_new();
        let (output, sessions) = watch(start(tool, &["-stT"], "UTC"), rows(tool));
        let mut lines = output.stdout.lines();
        assert_eq!(lines.next(), Some(heading), "{output}");
        assert!(!output.stdout.contains([' ', '\r']), "{output}");
        let headings: Vec<&str> = heading.split(',').collect();
        let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
        for row in &rows {
            assert_eq!(row.len(), headings.len(), "{row:?}\n{output}");
        }
        for end in sessions.iter().flat_map(|session| &session.ends) {
            assert_shown(&output, &headings, &rows, end);
        }
    }
    Ok(())
}

/// `-T`: the time of the event, in the time zone of the environment.
fn time_of_day_is_local() -> Outcome {
    // In POSIX the offset is added to local time to get UTC.
    const ZONES: [(&str, i64); 2] = [("UTC", 0), ("KTZ-3:30", 3 * 3600 + 30 * 60)];
    const DAY: i64 = 24 * 3600;
    needs(Feature::Ipv6)?;
    for (zone, offset) in ZONES {
        for (tool, mut columns) in [("tcplife", life(10, 15, 5)), ("tcpstates", states(10, 15))] {
            Netns::enter_new();
            columns.insert(0, ("TIME", 8));
            let started = start(tool, &["-T"], zone);
            let begin = seconds_since_1970(SystemTime::now());
            let (output, _) = watch(started, rows(tool));
            let end = seconds_since_1970(SystemTime::now());
            let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
            assert_eq!(output.stdout.lines().next(), Some(&*line(&mut columns, &headings)), "{output}");
            // One second earlier is right too: a row's time is converted from another clock.
            let clocks: Vec<String> =
                (begin - 1..=end).map(|at| clock((at + offset).rem_euclid(DAY))).collect();
            for cells in cells(&output) {
                assert!(
                    clocks.iter().any(|clock| clock == cells[0]),
                    "{cells:?}, not in {clocks:?}\n{output}"
                );
            }
        }
    }
    Ok(())
}

fn seconds_since_1970(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    i64::try_from(since).expect("a time of this age")
}

fn clock(second: i64) -> String {
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// `-t`: seconds since the first row, also beside `-T`.
fn seconds_since_the_first_row() -> Outcome {
    needs(Feature::Ipv6)?;
    for (tool, options) in [("tcplife", "-t"), ("tcpstates", "-t"), ("tcplife", "-tT"), ("tcpstates", "-tT")]
    {
        Netns::enter_new();
        let began = std::time::Instant::now();
        let (output, _) = watch(start(tool, &[options], "UTC"), rows(tool));
        let elapsed = began.elapsed().as_secs_f64();
        let at = usize::from(options == "-tT");
        let heading = output.stdout.lines().next().unwrap_or_default();
        let heading: Vec<&str> = heading.split_ascii_whitespace().collect();
        assert_eq!(heading[..=at], ["TIME", "TIME(s)"][1 - at..], "{output}");
        let times: Vec<&str> = cells(&output).iter().map(|cells| cells[at]).collect();
        assert_eq!(times[0], "0.000000", "{output}");
        let times: Vec<f64> = times.iter().map(|time| assert_number(time, 6, &output)).collect();
        // Events of two CPUs may be printed slightly out of order.
        assert!(times.iter().all(|time| (-0.01..elapsed).contains(time)), "{elapsed}\n{output}");
        assert!(times.iter().any(|time| *time > 0.0), "times increase\n{output}");
    }
    Ok(())
}
