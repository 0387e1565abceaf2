-- SPDX-License-Identifier: GPL-2.0
-- Two hundred functions, each hot enough to be compiled; in LuaJIT, and in what embeds it.
local sum = 0
local compile = loadstring or load
for factor = 1, 200 do
    local text = "local t = 0 for i = 1, 2000 do t = (t * " .. factor .. " + i) % 1000003 end return t"
    sum = (sum + compile(text)()) % 1000003
end
io.write(sum, "\n")

-- Strings and tables, and side exits that come late.
local words, longest = {}, ""
for number = 1, 20000 do
    local word = string.format("%x", number * number % 65537)
    words[word] = (words[word] or 0) + 1
    if #word > #longest or (number % 1000 == 0 and word > longest) then
        longest = word
    end
end
local different = 0
for _ in pairs(words) do
    different = different + 1
end
io.write(different, " ", longest, "\n")
