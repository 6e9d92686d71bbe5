-- Answer the open question of a task, or of this very attempt if there is a fence; returns 1, or 0: it is not open.
local id, question, token, fence, stands, data = unpack(ARGV, 5, 10)
local was = redis.call('HMGET', key('task', id), 'status', 'attempt', 'question_id', 'answered:' .. question)
if was[4] == token then return 1 end -- the reply to this was lost
if was[3] ~= question then return 0 end
if fence ~= '' and (was[2] ~= fence or was[1] ~= 'input_required') then return 0 end
if stands == '1' then
  resume(id, question, data, 'answered:' .. question, token, 'answer:' .. question, data)
else
  resume(id, question, data, 'answered:' .. question, token)
end
return 1
