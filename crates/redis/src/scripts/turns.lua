-- The turns that go the long way.
for _, turn in ipairs(long) do
  local at, i, what, ttl, wait = unpack(turn)
  local id, text = ARGV[i], ARGV[i + 1]
  if what == 'A' then
    answers[at] = acquire(id, text, ttl, tonumber(wait))
  elseif what == 'L' then
    answers[at] = acquire(id, text, ttl, tonumber(wait), KEYS[tonumber(ARGV[i + 2])])
  elseif what == 'R' then
    answers[at] = release(id)
  else
    answers[at] = release(id, text, KEYS[tonumber(ARGV[i + 2])], ttl == '1')
  end
end
return answers
