-- What every script begins with. One run of it does the calls of one tick, each with a prefix of its partition in KEYS,
-- `hermes:{p07}:`; every.lua, with which it ends, lets a call find its own arguments in ARGV, from the 5th on. The first
-- are the same for all. The kinds of keys are listed in keys.py.
local GIVEN, ARGV, PREFIX, ALONE = ARGV, nil, nil, not KEYS[2]
local ROOT = string.sub(KEYS[1], 1, -7)
local METRICS = ROOT .. 'metrics'
local MAXLEN, MAX_RUNNING, RESEND, GRACE = unpack(GIVEN, 1, 4)
local READY = {} -- tasks that a call has let in, and that its caller is to publish
local AFTERWARDS -- to be done once, after all calls

local function key(kind, id)
  if id then return PREFIX .. kind .. ':' .. id end
  return PREFIX .. kind
end

local function gate(kind, id)
  if id then return ROOT .. 'gate:' .. kind .. ':' .. id end
  return ROOT .. 'gate:' .. kind
end

local function partition_of(id)
  return ROOT .. '{p' .. string.sub(id, 2, 3) .. '}:'
end

local clock = redis.call('TIME')
-- In ms, as text and as a number: a number is turned into text for each command anew, which takes longer.
local STAMP = clock[1] .. string.sub('00000' .. clock[2], -6, -4)
local NOW = tonumber(STAMP)

-- What many calls add to is written once, at the end; whoever reads it before has to know. What one adds, at once.
local COUNTED, INDEXED, LOGGED
if not ALONE then COUNTED, INDEXED, LOGGED = {}, {}, {} end

local function tally(field, n)
  if ALONE then return redis.call('HINCRBY', METRICS, field, n) end
  COUNTED[field] = (COUNTED[field] or 0) + n
end

-- Give a member of a sorted set its score; false: it is to go.
local function index(name, member, score)
  if ALONE then
    if score then return redis.call('ZADD', name, score, member) end
    return redis.call('ZREM', name, member)
  end
  if not INDEXED[name] then INDEXED[name] = {} end
  INDEXED[name][member] = score
end

-- Count an event among its agent's; one that ends something took so many ms. The fields are told in core/metrics.py.
local function count(what, agent, took)
  if took then
    local edge = '10'
    if took > 10 then
      local edges, place = {25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 120000, 300000, 600000, 1800000,
                            3600000, 'inf'}, 1
      while place < 17 and took > edges[place] do place = place + 1 end
      edge = edges[place]
    elseif took < 0 then
      took = 0
    end
    tally(what .. ':ms ' .. agent, took)
    what = what .. ':' .. edge
  end
  tally(what .. ' ' .. agent, 1)
end

-- The next number of a session, dense and in order; how many there were since the first is noted.
local function next_seq(session)
  if ALONE then return redis.call('HINCRBY', session, 'seq', '1') end
  local logged = LOGGED[session]
  if logged then
    logged.seq, logged.more = logged.seq + 1, logged.more + 1
  else
    logged = {seq = redis.call('HINCRBY', session, 'seq', '1'), more = 0}
    LOGGED[session] = logged
  end
  return logged.seq
end

local NUDGE = 4096 -- bytes of data that a nudge brings along at most; who is to hear of more looks at the log

-- Log an event: the next dense seq is its stream id and its inbox id, and listeners are nudged with the event. It
-- is counted as `what`, or as its type.
local function log(session, inbox, id, type_, task, agent, attempt, trace, data, what, took)
  agent, attempt, trace = agent or '', attempt or '0', trace or '' -- what a damaged record lacks
  count(what or type_, agent, took)
  local seq = next_seq(key('session', session))
  local number = tostring(seq)
  redis.call('XADD', key('events', session), 'MAXLEN', '~', MAXLEN, number .. '-0', 'id', id, 'type', type_, 'time', STAMP,
             'task', task, 'agent', agent, 'attempt', attempt, 'trace', trace, 'data', data)
  if inbox == '1' then
    redis.call('XADD', key('inbox', session), number .. '-0', 'id', id, 'type', type_, 'time', STAMP,
               'task', task, 'agent', agent, 'attempt', attempt, 'trace', trace, 'data', data)
  end
  local nudge = number
  if #data <= NUDGE then
    nudge = table.concat({number, id, type_, STAMP, task, agent, attempt, trace, data}, '\n')
  end
  redis.call('PUBLISH', key('nudge', session), nudge)
  return seq
end

local function move(task_id, from, to, born)
  if from then index(key('by-status', from), task_id, false) end
  index(key('by-status', to), task_id, born)
end

-- A question is open no more: its parent need not hear of it.
local function close_question(task_id)
  local task = key('task', task_id)
  local is = redis.call('HMGET', task, 'question_seq', 'session')
  if is[1] then
    redis.call('XDEL', key('inbox', is[2]), is[1] .. '-0')
    redis.call('HDEL', task, 'question', 'question_id', 'question_seq')
  end
end

-- The open question of a task has come to an end; if it waits for that, it goes on.
local function resume(task_id, question, data, ...)
  local task = key('task', task_id)
  local is = redis.call('HMGET', task, 'status', 'attempt', 'session', 'agent', 'trace', 'created_at')
  local waits = is[1] == 'input_required'
  local event_id = task_id .. ':' .. is[2] .. ':answered-' .. question
  close_question(task_id)
  local seq = log(is[3], '0', event_id, waits and 'task.resumed' or 'task.answered', task_id, is[4], is[2], is[5], data)
  redis.call('HSET', task, 'status', waits and 'running' or is[1], 'last', event_id, 'last_seq', tostring(seq), ...)
  if waits then move(task_id, is[1], 'running', is[6]) end
  redis.call('PUBLISH', key('call', task_id), tostring(seq))
end

-- A task has ended: nothing is to be awaited, renewed or sent any more.
local function finish(task_id, was, has_deadline, asks)
  if was == 'queued' then redis.call('ZREM', key('due'), task_id) else index(key('leases'), task_id, false) end
  if has_deadline == '1' then
    redis.call('ZREM', key('deadlines'), 'expired/' .. task_id, 'total_timeout/' .. task_id, 'budget_exceeded/' .. task_id)
  end
  if asks then close_question(task_id) end
  index(key('ended'), task_id, STAMP)
end
