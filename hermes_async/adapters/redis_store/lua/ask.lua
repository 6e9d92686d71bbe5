-- A running attempt asks, and gives back its place; returns {1, READY} when the question is open, {2, the answer,
-- READY} when it was answered before, {0, READY} when the attempt is over.
local id, attempt, question, event_id, data = unpack(ARGV, 5, 9)
local task = key('task', id)
local was = redis.call('HMGET', task, 'status', 'attempt', 'session', 'agent', 'trace', 'created_at',
                       'answer:' .. question, 'question_id')
if was[2] ~= attempt then return {0, READY} end
if was[1] == 'input_required' then
  if was[8] == question then return {1, READY} end -- the reply to this was lost
  resume(id, was[8], cjson.encode({question_id = was[8], by = 'withdrawn'})) -- its agent has stopped asking that
elseif was[1] ~= 'running' then
  return {0, READY}
end
if was[7] then return {2, was[7], READY} end

close_question(id) -- an earlier attempt may have left one
leave(id, facts(id))
local seq = log(was[3], '1', event_id, 'task.input_required', id, was[4], attempt, was[5], data)
redis.call('HSET', task, 'status', 'input_required', 'question', data, 'question_id', question, 'question_seq', seq,
           'last', event_id, 'last_seq', seq)
move(id, 'running', 'input_required', was[6])
return {1, READY}
