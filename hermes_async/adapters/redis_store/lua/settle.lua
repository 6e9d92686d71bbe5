-- A claimed call has ended in one of four ways; returns 1, or 0 when the claim is not the caller's any more.
local how, cid, fence, delay, data, error_ = unpack(ARGV, 5, 10)
local L = open_ledger()
local row, record, id = L.row(cid), L.record(cid), L.task_of(cid)
local kind, receipt = L.kind(cid), how .. '/' .. fence
local is = redis.call('HMGET', record, 'session', 'agent', 'attempt', 'trace', 'telling', 'finished_at', 'receipt:' .. kind)
local session, telling, ended = is[1], is[5], is[6]
if is[7] == receipt then return 1 end -- the reply to this very call was lost
local line = redis.call('HGET', row, 'line')
if not line or redis.call('HGET', L.key('claims'), line) ~= fence .. '/' .. cid then return 0 end
redis.call('HSET', record, 'receipt:' .. kind, receipt)

local function tell(inbox, event_id, type_, what, as)
  log(session, inbox, cid .. ':' .. event_id, type_, id, is[2] or '', is[3] or '0', is[4] or '', what, as)
end

if how == 'succeed' then
  for i = 11, #ARGV do tell('1', i - 10, 'session.message', ARGV[i]) end
  tell('0', fence .. ':succeeded', 'callback.succeeded', data, 'callback.succeeded/' .. kind)
elseif how == 'fail' then
  L.note(cid, error_)
  tell('0', fence .. ':failed', 'callback.failed', data, 'callback.failed/' .. kind)
elseif how == 'give_up' then
  L.note(cid, error_)
  tell('0', fence .. ':dead', 'callback.dead', data, 'callback.dead/' .. kind)
end

local again = how == 'fail' or how == 'put_off'
if again and not (kind == 'on_progress' and ended) then
  if kind == 'on_progress' and telling ~= cid then -- one that tells of the newest progress is enough
    L.withdraw(telling)
    redis.call('HSET', record, 'telling', cid)
  end
  redis.call('HSET', row, 'due', NOW + delay)
  L.go_on(line)
else
  L.step_out(cid, line)
  if how == 'give_up' and kind ~= 'on_progress' then
    redis.call('HSET', row, 'dead', NOW)
    redis.call('ZADD', L.key('dead'), NOW, cid)
  else
    L.forget(cid)
  end
end
return 1
