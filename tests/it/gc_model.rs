//! Every interleaving of two pushers and two collections of one blob, on a model of
//! `registry/gc.rs` and `leases.rs`: one action a step, as fine as another thread could see
//! it. The orders that are not ours show what each of its rules is for.

use std::collections::HashMap;

/// What the registry does, or one thing that it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Ours,
    /// The file goes first, then the row, judged before either: distribution's order.
    FileFirst,
    /// The row goes in a transaction; then the file by its name, whoever has made it anew.
    UnlinkByName,
    /// Asks whether there is a row, and unlinks, without the writer's lock.
    Unserialised,
    /// A push commits its row before its file has its name.
    RowFirst,
    /// Nobody remembers what clients were told.
    NoLeases,
    /// What is told is remembered after the look.
    LeaseAfterLook,
    /// What goes is still told of until its transaction is over.
    NoDying,
    /// What was pushed again is not told of until the collection that took it has settled.
    StaysDying,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Row {
    None,
    /// Seen before the grace: only a lease or a manifest keeps it.
    Old,
    /// Pushed within it.
    Young,
}

/// Where each thread is. Pushers are 0 and 1, collections 2 and 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    // A push: is it here? If not, upload it. Then the manifest.
    Lease,
    Look,
    LeaseLate,
    Place,
    Commit,
    Manifest,
    Pull,
    // A collection: one at a time.
    Begin,
    Weigh,
    GiveUp,
    Delete,
    Settle,
    AskRow,
    Unlink,
    UnlinkFirst,
    Release,
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    row: Row,
    file: bool,
    /// Acknowledged manifests that name the blob.
    acknowledged: u8,
    leased: bool,
    dying: bool,
    /// Who has the writer's lock, and who the collection's.
    writer: Option<usize>,
    collecting: Option<usize>,
    at: [At; 4],
    refused: bool,
    broken: bool,
    fileless: bool,
    hidden: bool,
}

/// How many interleavings there are, and how many of them end in each kind of harm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    all: u64,
    /// An acknowledged manifest lost its blob.
    broken: u64,
    /// A row had no file, at some moment that a reader could see.
    fileless: u64,
    /// A client was told that a blob is here, and its manifest was refused.
    refused: u64,
    /// A blob of an acknowledged image was answered as absent.
    hidden: u64,
}

impl State {
    fn start(row: Row, file: bool) -> State {
        State {
            row,
            file,
            acknowledged: 0,
            leased: false,
            dying: false,
            writer: None,
            collecting: None,
            at: [At::Lease, At::Lease, At::Begin, At::Begin],
            refused: false,
            broken: false,
            fileless: false,
            hidden: false,
        }
    }

    /// Takes the writer's lock, or waits for it.
    fn write(&mut self, who: usize) -> Option<()> {
        match self.writer {
            None => self.writer = Some(who),
            Some(holder) if holder == who => {}
            Some(_) => return None,
        }
        Some(())
    }

    fn needed(&self) -> bool {
        self.row != Row::Old || self.acknowledged > 0
    }

    /// The state after this thread's next action; None if it waits, or is done.
    fn step(&self, who: usize, order: Order) -> Option<State> {
        let mut next = self.clone();
        let unlocks = |next: &mut State| next.writer = None;
        next.at[who] = match self.at[who] {
            At::Lease if order == Order::LeaseAfterLook => At::Look,
            At::Lease if self.dying => At::Place,
            At::Lease => {
                next.leased = order != Order::NoLeases;
                At::Look
            }
            At::Look if self.row == Row::None || !self.file => At::Place,
            At::Look if order == Order::LeaseAfterLook => At::LeaseLate,
            At::Look => At::Manifest,
            At::LeaseLate => {
                next.leased = true;
                At::Manifest
            }
            At::Place => {
                next.write(who)?;
                match order {
                    // The row is seen at once, the lock given up: the file comes after.
                    Order::RowFirst => {
                        next.row = Row::Young;
                        unlocks(&mut next);
                    }
                    _ => next.file = true,
                }
                At::Commit
            }
            At::Commit if order == Order::RowFirst => {
                next.file = true;
                At::Manifest
            }
            At::Commit => {
                next.row = Row::Young;
                next.dying &= order == Order::StaysDying;
                unlocks(&mut next);
                At::Manifest
            }
            At::Manifest => {
                next.write(who)?;
                unlocks(&mut next);
                if self.row != Row::None && self.file {
                    next.acknowledged += 1;
                    At::Pull
                } else {
                    next.refused = true;
                    At::Done
                }
            }
            // Its lease, its row and its file in one step: none of them goes any more.
            At::Pull => {
                next.hidden |= self.dying;
                At::Done
            }
            At::Begin if self.collecting.is_some() => return None,
            At::Begin => {
                next.collecting = Some(who);
                At::Weigh
            }
            At::Weigh if order == Order::FileFirst => match self.needed() {
                true => At::Release,
                false => At::UnlinkFirst,
            },
            At::Weigh => {
                next.write(who)?;
                match self.needed() {
                    true => {
                        unlocks(&mut next);
                        At::Release
                    }
                    false => At::GiveUp,
                }
            }
            At::UnlinkFirst => {
                next.file = false;
                At::Delete
            }
            At::GiveUp if self.leased => {
                unlocks(&mut next);
                At::Release
            }
            At::GiveUp => {
                next.dying = !matches!(order, Order::NoDying | Order::NoLeases);
                At::Delete
            }
            At::Delete => {
                next.write(who)?;
                next.row = Row::None;
                unlocks(&mut next);
                At::Settle
            }
            At::Settle => {
                next.dying = false;
                match order {
                    Order::FileFirst => At::Release,
                    Order::UnlinkByName => At::Unlink,
                    _ => At::AskRow,
                }
            }
            At::AskRow => {
                if order != Order::Unserialised {
                    next.write(who)?;
                }
                match self.row {
                    Row::None => At::Unlink,
                    _ => {
                        if order != Order::Unserialised {
                            unlocks(&mut next);
                        }
                        At::Release
                    }
                }
            }
            At::Unlink => {
                next.file = false;
                if !matches!(order, Order::Unserialised | Order::UnlinkByName) {
                    unlocks(&mut next);
                }
                At::Release
            }
            At::Release => {
                next.collecting = None;
                At::Done
            }
            At::Done => return None,
        };
        let whole = next.row != Row::None && next.file;
        next.broken |= next.acknowledged > 0 && !whole;
        next.fileless |= next.row != Row::None && !next.file;
        Some(next)
    }
}

/// Counts the ways on from a state. What was counted once is remembered.
fn explore(state: &State, order: Order, known: &mut HashMap<State, Counts>) -> Counts {
    if let Some(counts) = known.get(state) {
        return *counts;
    }
    let mut counts = Counts::default();
    let mut stuck = true;
    for who in 0..state.at.len() {
        if let Some(next) = state.step(who, order) {
            stuck = false;
            let on = explore(&next, order, known);
            counts.all += on.all;
            counts.broken += on.broken;
            counts.fileless += on.fileless;
            counts.refused += on.refused;
            counts.hidden += on.hidden;
        }
    }
    if stuck {
        assert!(state.at.iter().all(|at| *at == At::Done), "everybody waits: {state:?}");
        counts = Counts {
            all: 1,
            broken: state.broken.into(),
            fileless: state.fileless.into(),
            refused: state.refused.into(),
            hidden: state.hidden.into(),
        };
    }
    known.insert(state.clone(), counts);
    counts
}

/// From an empty store, from garbage, and from a file that a crash left without its row.
fn count(order: Order) -> Counts {
    let mut sum = Counts::default();
    for (row, file) in [(Row::None, false), (Row::Old, true), (Row::None, true)] {
        let counts = explore(&State::start(row, file), order, &mut HashMap::new());
        sum.all += counts.all;
        sum.broken += counts.broken;
        sum.fileless += counts.fileless;
        sum.refused += counts.refused;
        sum.hidden += counts.hidden;
    }
    eprintln!("{order:?}: {sum:?}");
    sum
}

#[test]
fn no_interleaving_of_pushes_and_collections_breaks_an_image_or_refuses_or_hides_one() {
    let counts = count(Order::Ours);
    assert!(counts.all > 100_000, "{counts:?}");
    assert_eq!(counts, Counts { all: counts.all, ..Counts::default() });
}

#[test]
fn an_order_with_the_file_first_breaks_acknowledged_images() {
    let counts = count(Order::FileFirst);
    assert!(counts.broken > 0 && counts.fileless > 0, "{counts:?}");
}

#[test]
fn a_file_unlinked_by_its_name_is_sometimes_one_that_was_pushed_anew() {
    for order in [Order::UnlinkByName, Order::Unserialised] {
        let counts = count(order);
        assert!(counts.broken > 0 && counts.fileless > 0, "{order:?}: {counts:?}");
    }
}

#[test]
fn a_row_before_its_file_is_seen_without_it() {
    assert!(count(Order::RowFirst).fileless > 0);
}

#[test]
fn leases_alone_keep_pushes_from_being_refused_and_lose_nothing_if_they_are_forgotten() {
    for order in [Order::NoLeases, Order::LeaseAfterLook, Order::NoDying] {
        let counts = count(order);
        assert!(counts.refused > 0, "{order:?}: {counts:?}");
        assert_eq!((counts.broken, counts.fileless), (0, 0), "{order:?}");
    }
}

#[test]
fn what_is_pushed_while_it_is_collected_would_be_hidden_if_the_push_did_not_say_so() {
    let counts = count(Order::StaysDying);
    assert!(counts.hidden > 0, "{counts:?}");
    assert_eq!((counts.broken, counts.fileless, counts.refused), (0, 0, 0));
}
