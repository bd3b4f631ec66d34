//! `aimss top`: mounts at a glance, drawn anew every second.
//!
//! A thread asks the daemons: one that doesn't answer stops neither keys nor picture.

mod history;
mod screen;

use crate::commands::status::{self, Shown};
use crate::{cli, commands, duration, interrupt};
use anyhow::{Result, anyhow, ensure};
use history::History;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Asked more often, the daemons would have more to do for `top` than for others.
const EVERY_MIN: Duration = Duration::from_millis(100);
/// How often it is looked whether an answer came.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the daemons said.
#[derive(Debug)]
struct Answer {
    at: Instant,
    /// Mounts, and a sentence for each that doesn't answer; or why nothing can be asked.
    said: Result<(Vec<Shown>, Vec<String>), String>,
}

/// All that is on the screen.
#[derive(Debug)]
pub struct View {
    /// As last told, in the order of their mount points.
    mounts: Vec<Shown>,
    /// Sentences about those that don't answer.
    silent: Vec<String>,
    history: BTreeMap<PathBuf, History>,
    /// When that was.
    told: Instant,
    every: Duration,
    /// Which mount is shown in full.
    chosen: usize,
    /// Lines of it that are above the screen.
    above: usize,
    held: bool,
}

/// Shows it until a key ends it.
pub fn run(asked: &cli::Top) -> Result<()> {
    let every = duration::parse(&asked.every).map_err(|why| commands::Usage(format!("--every: {why}")))?;
    if every < EVERY_MIN {
        return Err(commands::Usage("--every: pictures are 100ms apart at least".into()).into());
    }
    let mut view = View::new(every);
    let first = status::ask(asked.mountpoint.as_deref())?;
    ensure!(
        std::io::stdout().is_terminal() && std::io::stdin().is_terminal(),
        "`aimss top` draws on a terminal, and this is none; `aimss status` prints once"
    );
    view.take(Answer { at: Instant::now(), said: Ok(first) });
    let (answers, came) = channel();
    let mountpoint = asked.mountpoint.clone();
    std::thread::Builder::new().name("ask".into()).spawn(move || {
        loop {
            std::thread::sleep(every);
            let said = status::ask(mountpoint.as_deref()).map_err(|e| format!("{e:#}"));
            if answers.send(Answer { at: Instant::now(), said }).is_err() {
                return;
            }
        }
    })?;
    interrupt::note()?;
    let mut terminal =
        ratatui::try_init().map_err(|e| anyhow!("the terminal can't be used ({})", commands::why(&e)))?;
    let ended = watch(&mut terminal, &mut view, &came);
    ratatui::restore();
    ended
}

fn watch(terminal: &mut DefaultTerminal, view: &mut View, came: &Receiver<Answer>) -> Result<()> {
    loop {
        terminal.draw(|frame| screen::draw(frame, view))?;
        loop {
            interrupt::check()?;
            let mut news = false;
            if event::poll(LOOK_EVERY)? {
                match event::read()? {
                    Event::Key(key) if key.kind == KeyEventKind::Press => {
                        if !view.key(key) {
                            return Ok(());
                        }
                        news = true;
                    }
                    Event::Resize(..) => news = true,
                    _ => {}
                }
            }
            for answer in came.try_iter() {
                news |= view.take(answer);
            }
            // The time since the last answer is shown.
            if news || view.is_late() {
                break;
            }
        }
    }
}

impl View {
    fn new(every: Duration) -> View {
        View {
            mounts: Vec::new(),
            silent: Vec::new(),
            history: BTreeMap::new(),
            told: Instant::now(),
            every,
            chosen: 0,
            above: 0,
            held: false,
        }
    }

    /// False if it changes nothing on the screen.
    fn take(&mut self, answer: Answer) -> bool {
        let (mut mounts, silent) = answer.said.unwrap_or_else(|why| (Vec::new(), vec![why]));
        mounts.sort_by(|a, b| a.status.mountpoint.cmp(&b.status.mountpoint));
        for shown in &mounts {
            let history = self.history.entry(shown.status.mountpoint.clone()).or_default();
            history.add(&shown.status, answer.at);
        }
        self.history
            .retain(|mountpoint, _| mounts.iter().any(|shown| shown.status.mountpoint == *mountpoint));
        self.told = answer.at;
        if self.held {
            return false;
        }
        let chosen = self.mounts.get(self.chosen).map(|shown| shown.status.mountpoint.clone());
        self.chosen =
            mounts.iter().position(|shown| Some(&shown.status.mountpoint) == chosen.as_ref()).unwrap_or(0);
        (self.mounts, self.silent) = (mounts, silent);
        true
    }

    /// False if it ends the program.
    fn key(&mut self, key: KeyEvent) -> bool {
        let last = self.mounts.len().saturating_sub(1);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
            KeyCode::Char(' ') => self.held = !self.held,
            KeyCode::Up | KeyCode::Char('k') => {
                (self.chosen, self.above) = (self.chosen.saturating_sub(1), 0);
            }
            KeyCode::Down | KeyCode::Char('j') => {
                (self.chosen, self.above) = ((self.chosen + 1).min(last), 0)
            }
            KeyCode::PageDown => self.above += 5,
            KeyCode::PageUp => self.above = self.above.saturating_sub(5),
            KeyCode::Home => (self.chosen, self.above) = (0, 0),
            KeyCode::End => (self.chosen, self.above) = (last, 0),
            _ => {}
        }
        true
    }

    /// Whether an answer has been due for a while.
    fn is_late(&self) -> bool {
        self.told.elapsed() > self.every * 2 + Duration::from_secs(1)
    }
}
