package board

import "github.com/redis/go-redis/v9"

// Every write is one script, so that a reader never sees half of it, and names
// what it expects to find, so that a late writer changes nothing.

// luaWrite defines write(first key, first argument): absolute rows of trials.
//
// KEYS from the first one, four for each sweep: board, rows, checkpoints,
// checkpoint rows (keys.go).
// ARGV from the first one, for each trial: number of its sweep among the keys
// (from 0), trial, member, score ("" = not on the board), row JSON, number of
// checkpoints, then for each: member, JSON.
const luaWrite = `
local function write(k, a)
  while a <= #ARGV do
    local at = k + 4 * tonumber(ARGV[a])
    local trial, member = ARGV[a+1], ARGV[a+2]
    if ARGV[a+3] == '' then
      redis.call('ZREM', KEYS[at], member)
      redis.call('HDEL', KEYS[at+1], member)
    else
      redis.call('ZADD', KEYS[at], ARGV[a+3], member)
      redis.call('HSET', KEYS[at+1], member, ARGV[a+4])
    end
    local old = redis.call('ZRANGEBYSCORE', KEYS[at+2], trial, trial)
    for _, m in ipairs(old) do
      redis.call('ZREM', KEYS[at+2], m)
      redis.call('HDEL', KEYS[at+3], m)
    end
    local n = tonumber(ARGV[a+5])
    a = a + 6
    for _ = 1, n do
      redis.call('ZADD', KEYS[at+2], trial, ARGV[a])
      redis.call('HSET', KEYS[at+3], ARGV[a], ARGV[a+1])
      a = a + 2
    end
  end
end
`

// luaNow defines now(), in milliseconds of Redis's own clock.
const luaNow = `
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
`

// luaHeld defines held(own cluster, milliseconds): the cluster that keeps the
// board of KEYS[1], if it is another one and has said so lately, else nil. A board
// without that word is of a program that wrote none: whoever asks has to watch it.
const luaHeld = luaNow + `
local function held(own, lately)
  local m = redis.call('HMGET', KEYS[1], 'cluster', 'seen')
  if not m[1] or m[1] == own or not tonumber(m[2] or '') then return nil end
  local age = now() - tonumber(m[2])
  if age >= 0 and age < tonumber(lately) then return m[1] end
  return nil
end
`

// beginScript starts the rebuild of a board that no other living cluster keeps.
//
// KEYS: meta, building.
// ARGV: cluster, generation to build, milliseconds that a word holds.
// Answers {cluster, generation, index} as found, or {holder}.
var beginScript = redis.NewScript(luaHeld + `
local holder = held(ARGV[1], ARGV[3])
if holder then return {holder} end
redis.call('SET', KEYS[2], ARGV[2])
local m = redis.call('HMGET', KEYS[1], 'cluster', 'generation', 'index')
return {m[1] or '', m[2] or '', m[3] or ''}
`)

// lookScript reads the watermark, and says on the way that its cluster keeps the
// board.
//
// KEYS: meta.
// ARGV: cluster, milliseconds that a word holds.
// Answers {cluster, generation, index, holder, seen}, each empty where there is
// none.
var lookScript = redis.NewScript(luaHeld + `
local m = redis.call('HMGET', KEYS[1], 'cluster', 'generation', 'index', 'seen')
if m[1] and m[1] == ARGV[1] then redis.call('HSET', KEYS[1], 'seen', now()) end
return {m[1] or '', m[2] or '', m[3] or '', held(ARGV[1], ARGV[2]) or '', m[4] or ''}
`)

// advanceScript writes rows and moves the watermark.
//
// KEYS: meta, then the sweeps' as luaWrite says.
// ARGV: cluster, generation, index expected, index after, how many milliseconds
// ago the rows were all there is, then rows.
// Answers {1}, or {0, cluster, generation, index} as found.
var advanceScript = redis.NewScript(luaHeld + luaWrite + `
local m = redis.call('HMGET', KEYS[1], 'cluster', 'generation', 'index')
if m[1] ~= ARGV[1] or m[2] ~= ARGV[2] or m[3] ~= ARGV[3] then
  return {0, m[1] or '', m[2] or '', m[3] or ''}
end
write(2, 6)
redis.call('HSET', KEYS[1], 'index', ARGV[4], 'seen', now(), 'current', now() - tonumber(ARGV[5]))
return {1}
`)

// fillScript writes rows of a generation that nobody reads yet.
//
// KEYS: building, then the sweeps' as luaWrite says.
// ARGV: generation, then rows.
// Answers 1, or 0 when another generation is being built by now.
var fillScript = redis.NewScript(luaWrite + `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
write(2, 2)
return 1
`)

// publishScript makes a filled generation the one that is read, if meta is
// still what it was when filling began.
//
// KEYS: meta, building.
// ARGV: cluster, generation, index, then cluster, generation and index
// expected in meta (empty = no meta), milliseconds that a word holds, how many
// milliseconds ago the rows were all there is.
// Answers 1, or 0 when another writer was faster.
var publishScript = redis.NewScript(luaHeld + `
if held(ARGV[1], ARGV[7]) then return 0 end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
local m = redis.call('HMGET', KEYS[1], 'cluster', 'generation', 'index')
if (m[1] or '') ~= ARGV[4] or (m[2] or '') ~= ARGV[5] or (m[3] or '') ~= ARGV[6] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'cluster', ARGV[1], 'generation', ARGV[2], 'index', ARGV[3], 'seen', now(), 'current', now() - tonumber(ARGV[8]))
return 1
`)

// luaMeta opens every reading script. KEYS[1]: meta. ARGV: cluster and
// generation the other keys were named for. It answers {'absent'},
// {'other', cluster} or {'moved', generation} where they no longer are right. Age
// is how many milliseconds ago the board was known to lack nothing, ” where
// that is not known.
const luaMeta = luaNow + `
local m = redis.call('HMGET', KEYS[1], 'cluster', 'generation', 'index', 'current')
if not (m[1] and m[2] and m[3]) then return {'absent'} end
if m[1] ~= ARGV[1] then return {'other', m[1]} end
if m[2] ~= ARGV[2] then return {'moved', m[2]} end
local age = ''
if tonumber(m[4] or '') then age = tostring(now() - tonumber(m[4])) end
local out = {'ok', m[3], age}
local function append(names, rows)
  for i = 1, #names, 1000 do
    local got = redis.call('HMGET', rows, unpack(names, i, math.min(i + 999, #names)))
    for j = 1, #got do out[#out+1] = got[j] or '' end
  end
end
`

// leaderboardScript reads the best rows.
//
// KEYS: meta, board, rows. ARGV: cluster, generation, last rank (-1 = all).
// Answers {'ok', index, age, row JSON ...}, best first.
var leaderboardScript = redis.NewScript(luaMeta + `
append(redis.call('ZRANGE', KEYS[2], 0, ARGV[3]), KEYS[3])
return out
`)

// checkpointsScript reads checkpoints by trial, then epoch.
//
// KEYS: meta, checkpoints, checkpoint rows. ARGV: cluster, generation, lowest
// and highest trial.
// Answers {'ok', index, age, checkpoint JSON ...}.
var checkpointsScript = redis.NewScript(luaMeta + `
append(redis.call('ZRANGEBYSCORE', KEYS[2], ARGV[3], ARGV[4]), KEYS[3])
return out
`)
