-- The gate: which tasks may be on the broker or running now, and in which order the others wait.
--
-- A task is admitted when its lane has room for it and no limit of its subagent, its agent or the project says
-- no. Until then it stands in the line of its session and subagent, the most urgent first, then the oldest.
-- Lines whose head may go are in their lane's ring: the most urgent first, then the session whose turn it is.
-- A line at its own limit is in no ring, one at its agent's limit is parked; either comes back when a slot is
-- freed. What is admitted and not to be sent from here is the caller's to publish: it is in READY.
local LANES = {'async', 'process'}
local RANK = 4398046511104 -- 2^42, more than any seq or turn: urgency comes before age
local AT_ONCE = 256 -- tasks that one call lets in at most

-- What the gate needs to know of a task.
local function facts(id)
  local names = {'lane', 'session', 'subagent', 'slots', 'agent', 'agent_slots', 'priority', 'born', 'status', 'parcel_key',
                 'parcel', 'queue_timeout'}
  local task = {}
  for i, value in ipairs(redis.call('HMGET', partition_of(id) .. 'task:' .. id, unpack(names))) do
    task[names[i]] = value
  end
  return task
end

local function who(task) return task.subagent .. '/' .. task.session end

local function line_of(task) return task.lane .. '/' .. who(task) end

local function is_full(kind, id, slots)
  return slots and slots ~= '' and redis.call('SCARD', gate(kind, id)) >= tonumber(slots)
end

-- How many more a lane can take, and how many that must be before those who wait are let in: ports.py says why.
local function room_in(lane, slots)
  slots = tonumber(slots or 0)
  local places, step = 32, 1
  if slots > 0 then
    places, step = slots + math.max(2, math.floor(slots / 4)), math.max(1, math.floor(slots / 8))
  end
  return places - redis.call('SCARD', gate('admitted', lane)), step
end

-- How many more all lanes together can take.
local function room_in_all()
  if MAX_RUNNING == '0' then return math.huge end
  local running = 0
  for _, name in ipairs(LANES) do running = running + redis.call('SCARD', gate('admitted', name)) end
  return MAX_RUNNING - running
end

local function send(id, task)
  if task.parcel_key then
    redis.call('XADD', task.parcel_key, '*', 'm', task.parcel)
    index(gate('sent'), id, NOW + RESEND)
  else
    READY[#READY + 1] = id
    index(gate('sent'), id, NOW + GRACE)
  end
end

local function grant(id, task)
  redis.call('SADD', gate('admitted', task.lane), id)
  if task.slots and task.slots ~= '' then redis.call('SADD', gate('slots', who(task)), id) end
  if task.agent_slots and task.agent_slots ~= '' then redis.call('SADD', gate('slots-of', task.agent), id) end
  if task.status == 'running' then -- it had stepped aside, and listens
    redis.call('PUBLISH', partition_of(id) .. 'call:' .. id, 0)
  else
    send(id, task)
  end
end

local function fewer_wait(by)
  if by > 0 and redis.call('HINCRBY', gate('counts'), 'waiting', -by) <= 0 then
    redis.call('HDEL', gate('counts'), 'waiting')
    redis.call('DEL', gate('turns'))
  end
end

-- Let a line take part, behind those whose turn is before its session's.
local function place(line)
  local head = redis.call('ZRANGE', gate('line', line), 0, 0, 'WITHSCORES')
  if not head[1] then return false end
  local lane, session = string.match(line, '^([^/]*)/[^/]*/(.*)$')
  local turns = redis.call('HMGET', gate('turns'), session, '')
  local turn = math.max(tonumber(turns[1] or 0), tonumber(turns[2] or 0))
  redis.call('ZADD', gate('ring', lane), math.floor(head[2] / RANK) * RANK + turn, line)
  return true
end

-- A slot of an agent is free: the next of the lines that wait for it takes part again.
local function unpark(agent)
  while true do
    local first = redis.call('ZPOPMIN', gate('parked', agent))
    if not first[1] then return end
    local head = redis.call('ZRANGE', gate('line', first[1]), 0, 0)
    if place(first[1]) and facts(head[1]).agent == agent then return end
  end
end

-- A task that waited does not take the slot of its agent, which may have been offered to it: to the next, then.
local function pass_on(task)
  if task.agent_slots and task.agent_slots ~= '' and not is_full('slots-of', task.agent, task.agent_slots) then
    unpark(task.agent)
  end
end

-- Let the head of a lane's first line in, or take the line out of the ring because it may not go: 1 or 0.
local function take(lane, line, score)
  local ring, queue = gate('ring', lane), gate('line', line)
  local id, rank, next_, next_rank = unpack(redis.call('ZRANGE', queue, 0, 1, 'WITHSCORES'))
  local task = facts(id)
  if not (task.status and task.lane and task.session and task.subagent and task.agent) then -- the server lost its record
    redis.call('ZREM', queue, id)
    fewer_wait(1)
    if not place(line) then redis.call('ZREM', ring, line) end
    return 0
  end
  local turn = math.max(tonumber(redis.call('HGET', gate('turns'), task.session) or 0), score % RANK)
  local place_now = math.floor(rank / RANK) * RANK + turn
  if place_now > score then -- its session had its turn
    redis.call('ZADD', ring, place_now, line)
    return 0
  end
  if is_full('slots', who(task), task.slots) then
    redis.call('ZREM', ring, line)
    pass_on(task)
    return 0
  end
  if is_full('slots-of', task.agent, task.agent_slots) then
    redis.call('ZREM', ring, line)
    redis.call('ZADD', gate('parked', task.agent), score, line)
    return 0
  end
  redis.call('ZREM', queue, id)
  redis.call('HSET', gate('turns'), task.session, tostring(turn + 1), '', tostring(turn))
  if next_ then
    redis.call('ZADD', ring, math.floor(next_rank / RANK) * RANK + turn + 1, line)
  else
    redis.call('ZREM', ring, line)
  end
  grant(id, task)
  return 1
end

-- Let in those who wait, as far as there is room: not one by one, where that would only cost time.
local function let_in()
  local counts = redis.call('HMGET', gate('counts'), 'waiting', unpack(LANES))
  if not counts[1] then return end
  local rooms, empty = {}, {}
  for i, lane in ipairs(LANES) do
    local room, step = room_in(lane, counts[i + 1])
    if room >= step then rooms[lane] = room end
  end
  if not next(rooms) then return end
  local most = math.min(room_in_all(), AT_ONCE)
  local left = most
  while left > 0 do
    local lane, line, score
    for name, room in pairs(rooms) do
      local first = {}
      if room > 0 and not empty[name] then
        first = redis.call('ZRANGE', gate('ring', name), 0, 0, 'WITHSCORES')
      end
      if not first[1] then
        empty[name] = true
      elseif not score or tonumber(first[2]) < score or (tonumber(first[2]) == score and name < lane) then
        lane, line, score = name, first[1], tonumber(first[2])
      end
    end
    if not lane then break end
    local taken = take(lane, line, score)
    rooms[lane], left = rooms[lane] - taken, left - taken
    if taken == 0 then empty = {} end -- a slot was passed on, perhaps to another lane
  end
  fewer_wait(most - left)
end

-- A task wants to run: now if nobody is before it, else when it is its turn.
local function enter(id, task)
  if AFTERWARDS then -- a place that was given back is for those who wait already
    AFTERWARDS = nil
    let_in()
  end
  if task.queue_timeout and task.queue_timeout ~= '' and task.status == 'queued' then
    redis.call('ZADD', key('deadlines'), NOW + task.queue_timeout, 'expired/' .. id)
  end
  local line = line_of(task)
  local room = room_in(task.lane, redis.call('HGET', gate('counts'), task.lane)) > 0 and room_in_all() > 0
  local free = room and redis.call('EXISTS', gate('ring', task.lane), gate('line', line)) == 0
    and not is_full('slots', who(task), task.slots) and not is_full('slots-of', task.agent, task.agent_slots)
  if free then return grant(id, task) end
  local rank = task.status == 'running' and -1 or 9 - task.priority -- who has begun goes before who has not
  redis.call('ZADD', gate('line', line), rank * RANK + task.born, id)
  redis.call('HINCRBY', gate('counts'), 'waiting', 1)
  local first, former = unpack(redis.call('ZRANGE', gate('line', line), 0, 1))
  if first == id then -- else its head is where it may be
    place(line)
    former = former and facts(former)
    if former and former.agent ~= task.agent then pass_on(former) end
  end
  if room then let_in() end
end

-- A task gives back what it holds, or no longer waits; `task` tells what it was until now.
local function leave(id, task)
  if task.status == 'queued' then index(gate('sent'), id, false) end
  if redis.call('SREM', gate('admitted', task.lane), id) == 0 then
    local line = line_of(task)
    if redis.call('ZREM', gate('line', line), id) == 1 then
      if not place(line) then redis.call('ZREM', gate('ring', task.lane), line) end
      fewer_wait(1)
      pass_on(task)
      AFTERWARDS = let_in
    end
    return
  end
  if task.slots and task.slots ~= '' then
    redis.call('SREM', gate('slots', who(task)), id)
    for _, lane in ipairs(LANES) do place(lane .. '/' .. who(task)) end
  end
  if task.agent_slots and task.agent_slots ~= '' then
    redis.call('SREM', gate('slots-of', task.agent), id)
    unpark(task.agent)
  end
  AFTERWARDS = let_in
end
