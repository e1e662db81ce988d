//! What masters agree on through PostgreSQL, over a connection of its own. The functions that it
//! calls, and the tables, are in `lease.sql`.
//!
//! Runs on the thread that asks. All but a join is one exchange and commits by itself: should this
//! process be stopped in between, no transaction stays open.

use std::time::Duration;

use postgres::config::TargetSessionAttrs;
use postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::connector::PgConnector;
use super::session::{PgSession, SessionFault, unavailable, unknown, unreadable};
use crate::base::error::DbError;
use crate::base::labels::Label as _;
use crate::base::limits::{COORDINATION_STATEMENT_TIMEOUT, POSTGRES_ATTEMPTS_MAX};
use crate::store::OpenError;
use crate::store::lease::{
    ClusterLook, ConnectCoordination, Coordination, JoinRefusal, LeaseAsk, LeaseTold, MasterId,
    MasterRow, MasterState, Membership, ShardRow,
};
use crate::wire::data::sharding::{Shard, ShardSet};

/// What is left of a lease, and since when its master is there, in milliseconds.
macro_rules! lease_left {
    () => {
        "greatest(0, extract(epoch FROM expires_at - clock_timestamp()) * 1000)::bigint"
    };
}

/// Shards first: the owner of each joined before.
const LOOK: &str = concat!(
    "SELECT shard, epoch, owner FROM mesophyll_shard ORDER BY shard;
     SELECT master, name, api, version, weight, state, ",
    lease_left!(),
    ", greatest(0, extract(epoch FROM clock_timestamp() - started_at) * 1000)::bigint
     FROM mesophyll_master ORDER BY name, started_at"
);

/// Sessions that are in the middle of a write to a shard whose owner does not live. One that takes
/// the shard has its lock, too, in another mode.
const EVICT: &str =
    "SELECT count(pg_terminate_backend(pid)) FROM (SELECT DISTINCT l.pid FROM pg_locks l
     JOIN mesophyll_shard s ON l.classid = 1835365236 AND l.objid = s.shard::bigint AND l.objsubid = 2
     WHERE l.locktype = 'advisory' AND l.mode = 'ShareLock' AND l.granted AND s.shard = ANY ($1)
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         AND NOT EXISTS (SELECT FROM mesophyll_master m WHERE m.master = s.owner
             AND m.state <> 'dead' AND m.expires_at > clock_timestamp())) AS stuck";

/// Makes connections to where the masters of a database agree.
///
/// # Errors
/// [`OpenError::BadUrl`].
pub(in crate::store) fn coordination(url: &str) -> Result<ConnectCoordination, OpenError> {
    let mut connector = PgConnector::new(url)?;
    let config = &mut connector.config;
    config.tcp_user_timeout(COORDINATION_STATEMENT_TIMEOUT);
    if config.get_hosts().len() > 1 {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    Ok(Box::new(move || Ok(Box::new(PgCoordination::connect(&connector)?))))
}

struct PgCoordination {
    session: PgSession,
}

impl PgCoordination {
    fn connect(connector: &PgConnector) -> Result<Self, DbError> {
        let mut session = PgSession::connect(connector).map_err(|error| {
            log::debug!("postgres: no connection for the coordination: {error}");
            unavailable()
        })?;
        let timeout = COORDINATION_STATEMENT_TIMEOUT.as_millis();
        session
            .run(&format!("SET statement_timeout = {timeout}; SET lock_timeout = {timeout}"))
            .map_err(|_| unavailable())?;
        Ok(Self { session })
    }

    fn attempt(&mut self, ask: &LeaseAsk) -> Result<LeaseTold, SessionFault> {
        let session = &mut self.session;
        match ask {
            LeaseAsk::Join(master, wanted) => session
                .transaction(None, None, |session| join(session, *master, wanted))
                .map(LeaseTold::Joined),
            LeaseAsk::Renew(master, lease) => renew(session, *master, *lease),
            LeaseAsk::Take(master, shards) => take(session, *master, shards),
            LeaseAsk::Give(master, shards) => give(session, *master, shards),
            LeaseAsk::Evict(shards) => {
                let row = session.first(EVICT, &[&numbers(shards)])?;
                let ended: i64 = row.map_or(Ok(0), |row| row.try_get(0))?;
                Ok(LeaseTold::Evicted(ended.unsigned_abs()))
            }
            LeaseAsk::Retire(master) => {
                let retire = "UPDATE mesophyll_master SET state = 'draining', weight = 0
                     WHERE master = $1::text::uuid AND state <> 'dead'";
                session.execute(retire, &[&master.to_string()])?;
                Ok(LeaseTold::Retired)
            }
            LeaseAsk::Leave(master) => {
                let leave =
                    "UPDATE mesophyll_master SET state = 'dead' WHERE master = $1::text::uuid";
                session.execute(leave, &[&master.to_string()])?;
                Ok(LeaseTold::Left)
            }
            LeaseAsk::SetState(name, state) => {
                let changed = session.execute(
                    "UPDATE mesophyll_master SET state = $2
                     WHERE name = $1 AND state <> 'dead' AND expires_at > clock_timestamp()",
                    &[name, &state.as_str()],
                )?;
                Ok(LeaseTold::StateSet(changed > 0))
            }
        }
    }
}

impl Coordination for PgCoordination {
    fn ask(&mut self, ask: &LeaseAsk) -> Result<LeaseTold, DbError> {
        for _ in 0..POSTGRES_ATTEMPTS_MAX {
            return match self.attempt(ask) {
                Ok(told) => Ok(told),
                Err(SessionFault::Answer(error)) => Err(error),
                Err(SessionFault::Conflict) => continue,
                // Most statements commit by themselves.
                Err(SessionFault::Lost | SessionFault::Unknown) => Err(unknown()),
            };
        }
        Err(unavailable())
    }
}

/// Lets a master in, or says why not; the row of the cluster's name makes those that want in take
/// turns.
fn join(
    session: &mut PgSession,
    master: MasterId,
    wanted: &Membership,
) -> Result<Result<(), JoinRefusal>, SessionFault> {
    let row = session.first("SELECT name FROM mesophyll_cluster FOR UPDATE", &[])?;
    let cluster: Option<String> = row.map_or(Ok(None), |row| row.try_get(0))?;
    match (&cluster, &wanted.cluster) {
        (Some(cluster), Some(wanted)) if cluster != wanted => {
            return Ok(Err(JoinRefusal::OtherCluster(cluster.clone())));
        }
        _ => {}
    }
    // Masters that must not live beside this one, and could still renew a lease that is over.
    session.execute(
        "UPDATE mesophyll_master SET state = 'dead' WHERE state <> 'dead'
         AND expires_at <= clock_timestamp() AND (name = $1 OR cluster IS NULL OR $2::text IS NULL)",
        &[&wanted.name, &wanted.cluster],
    )?;
    let beside = session.query(
        concat!(
            "SELECT name, name = $1, ",
            lease_left!(),
            " FROM mesophyll_master WHERE state <> 'dead'
             AND (name = $1 OR cluster IS NULL OR $2::text IS NULL) ORDER BY name <> $1, name"
        ),
        &[&wanted.name, &wanted.cluster],
    )?;
    if let Some(first) = beside.first() {
        if first.try_get(1)? {
            return Ok(Err(JoinRefusal::NameLives(millis(first.try_get(2)?))));
        }
        let names = beside.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        return Ok(Err(JoinRefusal::OtherLives(names)));
    }
    session.execute(
        "INSERT INTO mesophyll_master (master, name, cluster, api, version, weight, expires_at)
         VALUES ($1::text::uuid, $2, $3, $4, $5, $6, clock_timestamp() + $7 * interval '1 ms')",
        &[
            &master.to_string(),
            &wanted.name,
            &wanted.cluster,
            &wanted.api,
            &wanted.version,
            &i32::try_from(wanted.weight).unwrap_or(i32::MAX),
            &(wanted.lease.as_millis() as f64),
        ],
    )?;
    session.execute("UPDATE mesophyll_cluster SET name = $1 WHERE $1 <> ''", &[&wanted.cluster])?;
    if wanted.cluster.is_some() {
        warn_without_standby(session)?;
    }
    Ok(Ok(()))
}

/// Tells the operator of a cluster where commits wait for no standby. That they wait for the disk
/// is the sessions' own matter: each sets `synchronous_commit`.
fn warn_without_standby(session: &mut PgSession) -> Result<(), SessionFault> {
    let setting = "SELECT current_setting('synchronous_standby_names') = ''";
    if session.first(setting, &[])?.map_or(Ok(false), |row| row.try_get(0))? {
        log::warn!(
            "cluster: a failover of the database can lose what was acknowledged: PostgreSQL waits for no standby; \
             set its synchronous_standby_names, such as to 'ANY 1 (*)'"
        );
    }
    Ok(())
}

/// Renews a lease and looks, in one exchange. The holder of shard 0 clears away masters that are
/// dead for a day.
fn renew(
    session: &mut PgSession,
    master: MasterId,
    lease: Duration,
) -> Result<LeaseTold, SessionFault> {
    let lease = lease.as_millis();
    let answers = session.answers(&format!(
        "UPDATE mesophyll_master SET expires_at = clock_timestamp() + interval '{lease} ms'
             WHERE master = '{master}' AND state <> 'dead';
         DELETE FROM mesophyll_master m WHERE expires_at < clock_timestamp() - interval '1 day'
             AND NOT EXISTS (SELECT FROM mesophyll_shard WHERE owner = m.master)
             AND EXISTS (SELECT FROM mesophyll_shard WHERE shard = 0 AND owner = '{master}');
         {LOOK}"
    ))?;
    let renewed = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
        _ => None,
    });
    if renewed == Some(0) {
        return Ok(LeaseTold::Renewed(None));
    }
    let mut look = ClusterLook::default();
    for answer in &answers {
        let SimpleQueryMessage::Row(row) = answer else { continue };
        if row.len() == 3 {
            let owner = row.get(2).map(master_of).transpose()?;
            look.shards.push(ShardRow { owner, epoch: number(row, 1)? });
        } else {
            look.masters.push(master_row(row)?);
        }
    }
    Ok(LeaseTold::Renewed(Some(look)))
}

fn take(
    session: &mut PgSession,
    master: MasterId,
    shards: &ShardSet,
) -> Result<LeaseTold, SessionFault> {
    let rows = session.query(
        "SELECT taken, at FROM mesophyll_take($1::text::uuid, $2)",
        &[&master.to_string(), &numbers(shards)],
    )?;
    let taken = rows.iter().map(|row| Ok((shard(row.try_get(0)?)?, row.try_get(1)?)));
    taken.collect::<Result<_, SessionFault>>().map(LeaseTold::Taken)
}

fn give(
    session: &mut PgSession,
    master: MasterId,
    given: &[(Shard, i64, Option<MasterId>)],
) -> Result<LeaseTold, SessionFault> {
    let shards: Vec<i32> = given.iter().map(|(shard, ..)| shard.number().into()).collect();
    let epochs: Vec<i64> = given.iter().map(|(_, epoch, _)| *epoch).collect();
    let heirs: Vec<Option<String>> =
        given.iter().map(|(_, _, heir)| heir.map(|heir| heir.to_string())).collect();
    let rows = session.query(
        "SELECT mesophyll_give($1::text::uuid, $2, $3, $4::text[]::uuid[])",
        &[&master.to_string(), &shards, &epochs, &heirs],
    )?;
    let given = rows.iter().map(|row| shard(row.try_get(0)?));
    given.collect::<Result<_, SessionFault>>().map(LeaseTold::Given)
}

fn numbers(shards: &ShardSet) -> Vec<i32> {
    shards.iter().map(|shard| shard.number().into()).collect()
}

fn shard(number: i32) -> Result<Shard, SessionFault> {
    let shard = u16::try_from(number).ok().and_then(Shard::new);
    Ok(shard.ok_or_else(|| unreadable(&"a shard of another number"))?)
}

fn millis(number: i64) -> Duration {
    Duration::from_millis(number.unsigned_abs())
}

fn master_of(uuid: &str) -> Result<MasterId, SessionFault> {
    let id = u128::from_str_radix(&uuid.replace('-', ""), 16);
    Ok(id.map(MasterId).map_err(|error| unreadable(&error))?)
}

fn text(row: &SimpleQueryRow, column: usize) -> Result<&str, SessionFault> {
    Ok(row.get(column).ok_or_else(|| unreadable(&"a master without a word"))?)
}

fn number(row: &SimpleQueryRow, column: usize) -> Result<i64, SessionFault> {
    Ok(text(row, column)?.parse().map_err(|error| unreadable(&error))?)
}

/// The master of a row of [`LOOK`].
fn master_row(row: &SimpleQueryRow) -> Result<MasterRow, SessionFault> {
    let state = MasterState::of_name(text(row, 5)?.as_bytes());
    Ok(MasterRow {
        id: master_of(text(row, 0)?)?,
        name: text(row, 1)?.to_owned(),
        api: text(row, 2)?.to_owned(),
        version: text(row, 3)?.to_owned(),
        weight: u32::try_from(number(row, 4)?).unwrap_or(0),
        state: state.ok_or_else(|| unreadable(&"a master in another state"))?,
        lease_left: millis(number(row, 6)?),
        up_for: millis(number(row, 7)?),
    })
}
