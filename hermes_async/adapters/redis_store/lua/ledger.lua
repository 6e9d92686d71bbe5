-- The ledger: rows of callbacks in lines, by the rules of core/ledger.py. It is opened where it is needed, because
-- making its functions would cost every script.
--
-- The line of an ordered session is `p<nn>/<session>`, that of a task its id, that of a webhook the id of its row:
-- all tell their partition in the same place. A line is in a ready set as long as it has rows, by the ms at which
-- it can be claimed: when its head is due, or when its claim runs out.
local function open_ledger()
  local KEPT = 5 -- failed tries of which the errors are kept
  local L = {}

  function L.key(kind) return ROOT .. 'ledger:' .. kind end
  function L.row(cid) return partition_of(cid) .. 'callback:' .. cid end
  function L.rows(line) return partition_of(line) .. 'line:' .. line end
  function L.task_of(cid) return string.match(cid, '^[^:]*') end
  function L.record(cid) return partition_of(cid) .. 'task:' .. L.task_of(cid) end
  function L.kind(cid) return string.match(cid, '^[^:]*:([^:]*)') end

  -- The ready set of a line: functions and webhooks are claimed apart.
  function L.ready(line)
    return L.key(string.find(line, '^t[^:]*:') and 'ready:webhooks' or 'ready:functions')
  end

  -- A claim is `<fence>/<row>`; returns the row.
  function L.claimed(line)
    local claim = redis.call('HGET', L.key('claims'), line)
    return claim and string.match(claim, '/(.*)$')
  end

  -- A line that nobody has claimed any more goes on with its head.
  function L.go_on(line)
    redis.call('HDEL', L.key('claims'), line)
    local head = redis.call('ZRANGE', L.rows(line), 0, 0)[1]
    if not head then return redis.call('ZREM', L.ready(line), line) end
    local due = redis.call('HGET', L.row(head), 'due') or 0
    redis.call('ZADD', L.ready(line), math.max(NOW, due), line)
    redis.call('PUBLISH', L.key('nudge'), line)
  end

  -- A row takes its place in its line.
  function L.stand(cid, line, seq)
    redis.call('ZADD', L.key('waiting'), NOW, cid)
    redis.call('ZADD', L.rows(line), tonumber(seq) or 0, cid) -- one that is damaged may go first
    if redis.call('ZRANK', L.rows(line), cid) == 0 and not L.claimed(line) then L.go_on(line) end
  end

  -- A row leaves its line, and its line goes on if it was its turn.
  function L.step_out(cid, line)
    local first = redis.call('ZRANK', L.rows(line), cid) == 0
    redis.call('ZREM', L.key('waiting'), cid)
    redis.call('ZREM', L.rows(line), cid)
    local claimed = L.claimed(line)
    if claimed == cid or (first and not claimed) then L.go_on(line) end
  end

  -- A row is over; its task may be forgotten some time after its last row.
  function L.forget(cid)
    redis.call('DEL', L.row(cid))
    local task, id = L.record(cid), L.task_of(cid)
    if redis.call('HINCRBY', task, 'rows', -1) > 0 then return end
    local ended = redis.call('HGET', task, 'finished_at')
    if ended then redis.call('ZADD', partition_of(id) .. 'ended', ended, id) end
  end

  -- Return the line of a row if the row waits, and nobody has claimed it.
  function L.waits(cid)
    local line = cid and redis.call('HGET', L.row(cid), 'line')
    return line and L.claimed(line) ~= cid and line
  end

  -- Note a failed try; the errors of the latest are kept, one a line. A count that is damaged begins anew.
  function L.note(cid, error_)
    local counted = redis.pcall('HINCRBY', L.row(cid), 'failures', 1)
    if type(counted) == 'table' then redis.call('HSET', L.row(cid), 'failures', 1) end
    local lines = {}
    for line in string.gmatch(redis.call('HGET', L.row(cid), 'log') or '', '[^\n]+') do lines[#lines + 1] = line end
    lines[#lines + 1] = NOW .. ' ' .. error_
    redis.call('HSET', L.row(cid), 'log', table.concat(lines, '\n', math.max(1, #lines - KEPT + 1)))
  end

  -- A row of on_progress that waits is not wanted any more.
  function L.withdraw(cid)
    local line = L.waits(cid)
    if not line then return end
    L.step_out(cid, line)
    L.forget(cid)
  end

  local function add(cid, line, seq)
    redis.call('HSET', L.row(cid), 'line', line, 'seq', seq)
    redis.call('HINCRBY', L.record(cid), 'rows', 1)
    L.stand(cid, line, seq)
  end

  -- File what an event of a task makes due: those of the kinds `due` that the task wants.
  function L.file(id, session, wants, due, seq, ended)
    local task = key('task', id)
    local telling = redis.call('HGET', task, 'telling')
    if ended then L.withdraw(telling) end
    local line = string.find(wants, 'ordered', 1, true) and 'p' .. string.sub(id, 2, 3) .. '/' .. session or id
    for kind in string.gmatch(due, '[^,]+') do
      local cid = id .. ':' .. kind
      if not string.find(wants, kind, 1, true) then -- nobody is to be told
      elseif kind == 'webhook' then
        add(cid, cid, seq)
      elseif kind ~= 'on_progress' then
        add(cid, line, seq)
      elseif not L.waits(telling) then
        add(cid .. ':' .. seq, line, seq)
        redis.call('HSET', task, 'telling', cid .. ':' .. seq)
      end
    end
    if ended and tonumber(redis.call('HGET', task, 'rows') or 0) > 0 then index(key('ended'), id, false) end
  end

  return L
end
