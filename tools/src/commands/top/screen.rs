//! The picture: a line a mount, and the chosen one in full.

use super::View;
use super::history::{History, Point};
use crate::commands::status::{Shown, render};
use crate::size::short;
use crate::{duration, escape};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Sparkline, Table, TableState};

/// Less can't be read.
const COLUMNS_MIN: u16 = 60;
const LINES_MIN: u16 = 12;
/// Columns left of a curve, and right of it.
const LABEL: u16 = 13;
const VALUE: u16 = 12;

const KEYS: &str = "up/down choose  space holds  q ends";

/// What is drawn as a curve: its label, the figure, and what stands behind the figure's value.
const CURVES: [(&str, fn(&Point) -> u64, &str); 4] = [
    ("dirty", |point| point.dirty, ""),
    ("drained", |point| point.drained, "/s"),
    ("fetched", |point| point.fetched, "/s"),
    ("records", |point| point.records, "/s"),
];

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, view: &View) {
    let area = frame.area();
    if area.width < COLUMNS_MIN || area.height < LINES_MIN {
        let text = format!(
            "{COLUMNS_MIN} columns and {LINES_MIN} lines are needed, here are {} and {}; q ends",
            area.width, area.height
        );
        return frame.render_widget(Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }), area);
    }
    // A third of the screen is for the mounts: with more, those around the chosen one are shown.
    let rows = (view.mounts.len() as u16).clamp(1, area.height / 3);
    let [title, table, heading, curves, details] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(rows + 1),
        Constraint::Length(1),
        Constraint::Length(CURVES.len() as u16),
        Constraint::Fill(1),
    ])
    .areas(area);
    draw_title(frame, view, title);
    draw_mounts(frame, view, table);
    let Some(shown) = view.mounts.get(view.chosen) else {
        let text = if view.silent.is_empty() {
            vec![Line::from("nothing is mounted; `aimss mount BACKING MOUNTPOINT` mounts a directory")]
        } else {
            view.silent.iter().map(|sentence| Line::from(escape::text(sentence)).red()).collect()
        };
        return frame
            .render_widget(Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }), details);
    };
    let rule = format!(
        "{:\u{2500}<width$}",
        format!("\u{2500} {} ", render::heading(&shown.status)),
        width = usize::from(area.width)
    );
    frame.render_widget(Line::from(rule).bold(), heading);
    if let Some(history) = view.history.get(&shown.status.mountpoint) {
        draw_curves(frame, history, curves);
    }
    draw_details(frame, view, shown, details);
}

fn draw_title(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let mounts = match view.mounts.len() {
        1 => "1 mount".to_owned(),
        count => format!("{count} mounts"),
    };
    let mut spans =
        vec!["aimss top".bold(), Span::from(format!("  {mounts}, every {}", duration::human(view.every)))];
    if view.held {
        spans.push("  held".yellow());
    } else if view.is_late() {
        spans.push(format!("  no answer for {}", duration::human(view.told.elapsed())).red());
    } else if !view.silent.is_empty() {
        spans.push(format!("  {} don't answer", view.silent.len()).red());
    }
    frame.render_widget(Line::from(spans), area);
    if area.width >= 80 {
        frame.render_widget(Paragraph::new(KEYS.dim()).alignment(Alignment::Right), area);
    }
}

fn draw_mounts(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let right = |text: String| Line::from(text).right_aligned();
    let header = ["DIRTY", "DRAIN/s", "FETCH/s", "REC/s", "LAG", "OPEN"].map(|name| right(name.into()));
    let header = [Line::from("MOUNT"), right("MEMORY".into())].into_iter().chain(header);
    let rows = view.mounts.iter().map(|shown| {
        let status = &shown.status;
        let name = Line::from(escape::path(&status.mountpoint));
        if !shown.alive {
            return Row::new([name, right("dead".into())]).red();
        }
        let last = view.history.get(&status.mountpoint).map(History::last).unwrap_or_default();
        let memory = format!("{} of {}", short(status.memory.used), short(status.memory.budget));
        let row = Row::new([
            name,
            right(memory),
            right(short(last.dirty)),
            right(short(last.drained)),
            right(short(last.fetched)),
            right(count(last.records)),
            right(count(status.streams.groups.lag)),
            right(count(status.files.open)),
        ]);
        // Somebody should look at it.
        if status.drain.failing + status.requests.too_long > 0 { row.yellow() } else { row }
    });
    let widths = [Constraint::Fill(1), Constraint::Length(14)]
        .into_iter()
        .chain([7, 7, 7, 6, 6, 5].map(Constraint::Length));
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::REVERSED)))
        .row_highlight_style(Style::new().add_modifier(Modifier::BOLD))
        .highlight_symbol("> ");
    let mut state = TableState::new().with_selected(Some(view.chosen));
    frame.render_stateful_widget(table, area, &mut state);
}

fn draw_curves(frame: &mut Frame<'_>, history: &History, area: Rect) {
    let rows = Layout::vertical([Constraint::Length(1); CURVES.len()]).split(area);
    for ((label, figure, behind), row) in CURVES.into_iter().zip(rows.iter()) {
        let widths = [Constraint::Length(LABEL), Constraint::Fill(1), Constraint::Length(VALUE)];
        let [left, middle, right] = Layout::horizontal(widths).areas(*row);
        let points = history.of(usize::from(middle.width), figure);
        let most = points.iter().copied().max().unwrap_or_default();
        // The newest stands at the right end from the beginning.
        let empty = usize::from(middle.width) - points.len();
        let points: Vec<u64> = std::iter::repeat_n(0, empty).chain(points).collect();
        let value = if label == "records" { count(most) } else { short(most) };
        frame.render_widget(Line::from(format!("  {label}")).dim(), left);
        frame.render_widget(
            Sparkline::default().data(points).max(most.max(1)).style(Style::new().fg(Color::Cyan)),
            middle,
        );
        frame.render_widget(Line::from(format!("max {value}{behind}")).right_aligned().dim(), right);
    }
}

fn draw_details(frame: &mut Frame<'_>, view: &View, shown: &Shown, area: Rect) {
    let mut lines = Vec::new();
    let silent = view.silent.iter().map(|sentence| ("no answer", sentence.clone()));
    for (label, text) in silent.chain(render::lines(&shown.status, shown.alive)) {
        let style = match label {
            "last error" | "way out" | "waiting" | "no answer" => Style::new().fg(Color::Red),
            "limit" => Style::new().fg(Color::Yellow),
            _ => Style::new(),
        };
        let broken = render::broken(label, &text, usize::from(area.width));
        lines.extend(broken.into_iter().map(|line| Line::from(line).style(style)));
    }
    let room = usize::from(area.height);
    let above = view.above.min(lines.len().saturating_sub(room));
    let below = (lines.len() - above).saturating_sub(room);
    let mut shown: Vec<Line<'_>> = lines.into_iter().skip(above).take(room).collect();
    if below > 0
        && let Some(last) = shown.last_mut()
    {
        *last = Line::from(format!("  {} more lines: PgDn", below + 1)).dim();
    }
    frame.render_widget(Paragraph::new(shown), area);
}

/// A count in at most six columns: `0`, `99999`, `120k`, `1.2M`.
fn count(count: u64) -> String {
    match count {
        0..=99_999 => count.to_string(),
        100_000..=999_999 => format!("{}k", count / 1000),
        1_000_000..=99_999_999 => format!("{:.1}M", count as f64 / 1e6),
        100_000_000..=9_999_999_999 => format!("{}M", count / 1_000_000),
        _ => format!("{}G", count / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::top::Answer;
    use aimss_fs::control::status::MountStatus;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::{Duration, Instant};

    fn view(mounts: usize) -> View {
        let mut view = View::new(Duration::from_secs(1));
        let begun = Instant::now();
        for step in 0..30_u64 {
            let mounts = (0..mounts).map(|number| {
                let mut status = MountStatus {
                    mountpoint: format!("/mnt/fast-{number}").into(),
                    backing: "/data/ckpt\u{1b}[31m".into(),
                    ..MountStatus::default()
                };
                status.memory.budget = 4 << 30;
                status.memory.used = step << 20;
                status.drain.bytes = (step % 7) << 20;
                status.drain.written = step * step << 20;
                status.streams.records = step * 120_000;
                status.limits = vec!["No huge pages: the kernel was built without them.".into(); 20];
                Shown { alive: number != 1, status }
            });
            view.take(Answer {
                at: begun + Duration::from_secs(step),
                said: Ok((mounts.collect(), Vec::new())),
            });
        }
        view.told = Instant::now();
        view
    }

    fn picture(view: &View, columns: u16, lines: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(columns, lines)).expect("a terminal in memory");
        terminal.draw(|frame| draw(frame, view)).expect("it draws");
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..columns).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
        (0..lines).map(line).collect()
    }

    #[test]
    fn a_mount_is_read_at_eighty_columns() {
        let shown = picture(&view(3), 80, 24);
        let text = shown.join("\n");
        assert!(shown[0].starts_with("aimss top  3 mounts, every 1.0 s"), "{text}");
        assert!(shown[0].trim_end().ends_with(KEYS), "{text}");
        for word in ["MOUNT", "MEMORY", "DIRTY", "DRAIN/s", "FETCH/s", "REC/s", "LAG", "OPEN"] {
            assert!(shown[1].contains(word), "{word}: {text}");
        }
        assert!(shown[2].starts_with("> /mnt/fast-0 ") && shown[2].contains("29M of 4G"), "{text}");
        assert!(shown[2].contains(" 57M ") && shown[2].contains(" 120k "), "{text}");
        assert!(shown[3].contains("/mnt/fast-1") && shown[3].contains("dead"), "{text}");
        assert!(shown[5].contains("/mnt/fast-0 over /data/ckpt\\u{1b}[31m"), "{text}");
        assert!(shown[7].contains("drained") && shown[7].trim_end().ends_with("max 57M/s"), "{text}");
        assert!(text.contains("more lines: PgDn"), "{text}");
    }

    #[test]
    fn every_size_of_terminal_gets_a_picture() {
        for mounts in [0, 1, 40] {
            let view = view(mounts);
            for (columns, lines) in [(1, 1), (20, 5), (60, 12), (79, 13), (80, 24), (300, 100)] {
                picture(&view, columns, lines);
            }
        }
    }

    #[test]
    fn the_chosen_mount_is_on_the_screen_and_stays_chosen() {
        use ratatui::crossterm::event::{KeyCode, KeyEvent};
        let mut view = view(40);
        for _ in 0..25 {
            assert!(view.key(KeyEvent::from(KeyCode::Down)));
        }
        let chosen = view.mounts[view.chosen].status.mountpoint.clone();
        assert!(picture(&view, 80, 24).join("\n").contains(&format!("> {}", chosen.display())));
        // One before it goes.
        let mut mounts = view.mounts.clone();
        mounts.remove(0);
        view.take(Answer { at: Instant::now(), said: Ok((mounts, Vec::new())) });
        assert_eq!(view.mounts[view.chosen].status.mountpoint, chosen);
        assert!(!view.key(KeyEvent::from(KeyCode::Char('q'))));
    }

    #[test]
    fn who_does_not_answer_is_named() {
        let mut view = view(1);
        view.take(Answer {
            at: Instant::now(),
            said: Ok((Vec::new(), vec!["/mnt/x does not answer.".into()])),
        });
        assert!(picture(&view, 80, 24).join("\n").contains("/mnt/x does not answer."));
    }

    #[test]
    fn counts_are_short() {
        let cases =
            [(0, "0"), (99_999, "99999"), (123_456, "123k"), (1_234_567, "1.2M"), (123_456_789, "123M")];
        for (number, text) in cases {
            assert_eq!(count(number), text);
        }
    }
}
