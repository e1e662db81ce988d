//! `STRESS_MASTERS=3`: several masters over one PostgreSQL, each behind wires that can be cut,
//! while callers count. One fault after the other, in a round that repeats until the time is over;
//! last a failover to a synchronous standby. With STRESS_KILLS=50, so many kills of a master and
//! how long its shards were without another, instead.

mod calls;
mod members;
mod server;
mod watch;
mod wire;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postgres::Client;
use rustix::process::Signal;

use super::Plan;
use super::clock::pause_until;
use super::process::eventually;
use super::random::Random;
use calls::Books;
use members::{Member, agent};
use server::Server;
use watch::Watch;

const SHARDS: i64 = 509;

/// Workers of each master.
const WORKERS: usize = 2;

/// Twice the lease, which is the default.
const TWO_LEASES: Duration = Duration::from_secs(12);

/// How soon all shards must be held again after a kill.
const TAKEOVER_MAX: Duration = Duration::from_secs(10);

struct Cluster<'a> {
    members: &'a [Member],
    servers: [&'a Server; 2],
    books: &'a Books,
    watch: &'a Watch,
    takeovers: Vec<Duration>,
    wrongs: Vec<String>,
}

/// Runs the plan; returns what was wrong.
pub(crate) fn run(plan: &Plan) -> Vec<String> {
    let folder = std::env::temp_dir().join(format!("mesophyll-masters-{}", std::process::id()));
    fs::create_dir(&folder).expect("a new folder");
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("its permissions");
    let Some(first) = Server::start(&folder) else {
        return vec!["PostgreSQL's programs are not in /usr/lib/postgresql".to_owned()];
    };
    first.connect("postgres").batch_execute("CREATE DATABASE stress").expect("a database");
    let second = first.standby();
    let migrated = std::process::Command::new(&plan.binary)
        .args(["migrate", "--store", &format!("postgres://postgres@{}/stress", first.address())])
        .status();
    assert!(migrated.is_ok_and(|status| status.success()), "migrated");
    watch::prepare(&first);
    let member = |number| Member::new(number, &plan.binary, &folder, first.address(), WORKERS);
    let members: Vec<Member> = (0..plan.masters).map(member).collect();
    members.iter().for_each(Member::start);
    let (books, watch, done) = (Books::default(), Watch::default(), AtomicBool::new(false));
    let mut wrongs = Vec::new();
    std::thread::scope(|scope| {
        let (watching, watched, done) = (&watch, [&first, &second], &done);
        scope.spawn(move || watching.look(&watched, done));
        let mut cluster = Cluster {
            members: &members,
            servers: [&first, &second],
            books: &books,
            watch: &watch,
            takeovers: Vec::new(),
            wrongs: Vec::new(),
        };
        cluster.wait_settled();
        for caller in 0..plan.callers {
            let random = Random::new(plan.seed.wrapping_mul(1000) + caller);
            let (members, books) = (&members, &books);
            scope.spawn(move || calls::call(members, books, plan.tenants, random, done));
        }
        // So that a panic in here does not leave the others running for ever.
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cluster.act(plan)));
        done.store(true, Ordering::SeqCst);
        wrongs = cluster.wrongs;
        wrongs.extend(acted.err().map(|_| "a step did not end".to_owned()));
    });
    println!("{}", books.summary());
    let (agent, token) = (agent(), calls::token());
    wrongs.extend(books.check(|tenant| {
        let ask = || calls::count(&agent, &token, &members[0], tenant).ok();
        eventually("a last count", || ask().filter(|(status, _)| *status == 200))
            .1
            .as_u64()
            .unwrap_or(0)
    }));
    let now = if second.try_connect("stress").is_some_and(|mut one| is_primary(&mut one)) {
        &second
    } else {
        &first
    };
    wrongs.extend(watch.check(now));
    let badly = members.iter().filter(|member| !member.stop()).count();
    wrongs.extend((badly > 0).then(|| format!("{badly} masters did not end with exit code 0")));
    if wrongs.is_empty() {
        drop((members, first, second));
        let _ = fs::remove_dir_all(&folder);
    } else {
        println!("the logs are in {}", folder.display());
    }
    wrongs
}

fn is_primary(client: &mut Client) -> bool {
    client.query_one("SELECT NOT pg_is_in_recovery()", &[]).is_ok_and(|row| row.get::<_, bool>(0))
}

impl Cluster<'_> {
    fn act(&mut self, plan: &Plan) {
        let mut random = Random::new(plan.seed);
        if plan.kills > 0 {
            for _ in 0..plan.kills {
                let one = &self.members[random.below(self.members.len() as u64) as usize];
                self.step("kill -9", |cluster| cluster.kill(one, Duration::from_secs(2)));
            }
            return;
        }
        let until = Instant::now() + plan.time;
        loop {
            let one = &self.members[random.below(self.members.len() as u64) as usize];
            let pause = |time: Duration| pause_until(Instant::now() + time);
            self.step("calm", |_| pause(Duration::from_secs(5)));
            self.step("kill -9", |cluster| cluster.kill(one, Duration::from_secs(3)));
            self.step("stopped for two leases", |_| {
                one.signal(Signal::STOP);
                pause(TWO_LEASES);
                one.signal(Signal::CONT);
            });
            self.step("cut from PostgreSQL for two leases", |_| {
                one.database.cut();
                pause(TWO_LEASES);
                one.database.mend();
            });
            self.step("cut from its peers", |_| {
                one.peers.cut();
                pause(Duration::from_secs(8));
                one.peers.mend();
            });
            for away in [3, 10] {
                self.step_without_moves("PostgreSQL killed and away", |cluster| {
                    cluster.servers[0].kill();
                    pause(Duration::from_secs(away));
                    cluster.servers[0].go_on();
                });
            }
            self.step("rolling upgrade", |cluster| {
                for member in cluster.members {
                    if !member.stop() {
                        cluster.wrongs.push(format!("{} did not end well", member.name));
                    }
                    member.start();
                    member.wait_ready(&agent());
                }
            });
            if Instant::now() >= until {
                break;
            }
        }
        self.step_without_moves("failover to the standby", |cluster| {
            let [first, second] = cluster.servers;
            first.kill();
            pause_until(Instant::now() + Duration::from_secs(3));
            second.promote();
            cluster.members.iter().for_each(|one| one.database.lead_to(second.address()));
        });
    }

    /// One fault, until every shard is where it belongs again; tells what came of it.
    fn step(&mut self, name: &str, act: impl FnOnce(&mut Self)) -> u64 {
        // What came before is seen by then.
        pause_until(Instant::now() + Duration::from_secs(1));
        let (moves, begun) = (self.watch.moves(), Instant::now());
        self.books.part();
        act(self);
        let acted = begun.elapsed();
        self.wait_settled();
        let settled = begun.elapsed();
        // What waited is answered.
        pause_until(Instant::now() + Duration::from_secs(2));
        let (part, moved) = (self.books.part(), self.watch.moves() - moves);
        println!(
            "{name}: {:.1} s, settled after {:.1} s more, {moved} shards moved; {part}",
            acted.as_secs_f64(),
            (settled - acted).as_secs_f64()
        );
        moved
    }

    fn step_without_moves(&mut self, name: &str, act: impl FnOnce(&mut Self)) {
        let moved = self.step(name, act);
        if moved > 0 {
            self.wrongs.push(format!("{name}: {moved} shards moved"));
        }
    }

    fn kill(&mut self, one: &Member, away: Duration) {
        let mut client = self.connect();
        let sql =
            "SELECT count(*) FROM mesophyll_shard s JOIN mesophyll_master m ON m.master = s.owner
                   WHERE m.name = $1";
        one.kill();
        let begun = Instant::now();
        eventually("another has its shards", || {
            let row = client.query_one(sql, &[&one.name]).ok()?;
            (row.get::<_, i64>(0) == 0).then_some(())
        });
        let took = begun.elapsed();
        self.takeovers.push(took);
        let mut sorted = self.takeovers.clone();
        sorted.sort();
        let p99 = sorted[(sorted.len() * 99).div_ceil(100) - 1];
        println!("  taken over after {took:.1?}; of {} p99 {p99:.1?}", sorted.len());
        if took > TAKEOVER_MAX {
            self.wrongs.push(format!("shards were without a master for {took:.1?}"));
        }
        pause_until(begun + away.max(took));
        one.start();
        one.wait_ready(&agent());
    }

    /// Waits until every shard has a living owner and each master about its share.
    fn wait_settled(&self) {
        let sql = "SELECT count(*) FROM (SELECT m.name, count(*) AS held FROM mesophyll_shard s
                   JOIN mesophyll_master m ON m.master = s.owner AND m.state = 'up'
                   AND m.expires_at > clock_timestamp() GROUP BY m.name) x WHERE held BETWEEN $1 AND $2";
        let masters = self.members.len() as i64;
        let (least, most) = (SHARDS / masters - 2, (SHARDS + masters - 1) / masters + 2);
        eventually("every master has its share", || {
            let row = self.try_connect()?.query_one(sql, &[&least, &most]).ok()?;
            (row.get::<_, i64>(0) == masters).then_some(())
        });
    }

    fn try_connect(&self) -> Option<Client> {
        let open = self.servers.iter().filter_map(|server| server.try_connect("stress"));
        open.into_iter().find_map(|mut one| is_primary(&mut one).then_some(one))
    }

    fn connect(&self) -> Client {
        eventually("the database answers", || self.try_connect())
    }
}
