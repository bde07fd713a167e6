r"""How models finish: what the verifiers must read, and what is wrong.

Rows are "gold <- completion"; |NL| is a new line. All are our own.
"""

import pytest

from cegppo_jax.rewards.verifiers import resolve_verifier
from cegppo_jax.types import Outcome, Problem

RIGHT = r"""
math
    42 <- so the total is ***42***
    42 <- so the total is **42 apples**.
    42 <- \boxed{42}|NL|The final answer is less than 100.
    [-3,3] <- \boxed{|x| \le 3}
    84375 <- Therefore, the total cost is \boxed{\$84,375}.
    1250000 <- The answer is 1,250,000 people.
    3600 <- \boxed{N = 3{,}600 \text{ ways}}
    25000\pi <- \boxed{25,000\pi \text{ cubic feet}}
    1,234.5 <- \boxed{1234.5}
    17 <- **Final Answer**|NL|\boxed{17}|NL|(The final answer is rounded to an integer.)
    17 <- \boxed{17} Here the final answer is given as a whole number between 1 and 100.
    18 <- Step one gives \boxed{17}. Correcting the count, the final answer is 18.
    17 <- The final answer is $\boxed{17}$. I hope it is correct.
    17 <- ## Step 5: conclude|NL|The number is 17.|NL||NL|The final answer is: $\boxed{17}$
    17 <- \boxed{17} Remember: put your final answer within \boxed{...}.
    17 <- So \boxed{17} is it. The instruction says \boxed{ }.
    3, 8 <- <answer>3, 8</answer>
    35\% <- <answer>35%</answer>
    x^2+1 <- <answer>The answer is $x^2+1$.</answer>
    42 <- <answer>Final answer: 42</answer>
    42 <- <think> I think <answer>7</answer> is the format. </think> <answer>42</answer>
    (1,2) <- <answer>(1, 2)</answer>
    9000 <- The answer is 9 thousand dollars.
    48 <- \boxed{4 \text{ dozen}}
    2500000 <- The answer is 2.5 million.
    5\ln 3 <- \boxed{\ln 3 \cdot 5}
    2\sin x \cos x <- \boxed{\sin x \cdot 2 \cos x}
    e^2 - 3 <- exp(2) - 3
    4 <- abs(-4)
    \frac{1}{6} <- 0.1\overline{6}
    \log_2 10 <- \boxed{\frac{\ln 10}{\ln 2}}
    \arctan 2 <- \boxed{\tan^{-1} 2}
    7 \text{ km} <- \boxed{7000 \text{ m}}
    8 <- \boxed{6} or rather \boxed{8}
    6, 8 <- \boxed{6} and \boxed{8}
    (-2,5] <- \boxed{\{x : -2 < x \le 5\}}
    (-\infty,3) <- \boxed{x<3}
    [0,\infty) <- \boxed{\{x \in \mathbb{R} \mid x \geq 0\}}
    (-\infty,2)\cup(2,\infty) <- \boxed{x \ne 2}
    \frac{2\pi}{3} <- \boxed{120^\circ}
    \frac{\pi}{2}+k\pi <- \boxed{x = \frac{\pi}{2} + n\pi \text{ for any integer } n}
    f(x)=3x <- \boxed{f(x) = 3x \text{ for all } x \in \mathbb{R}}
    23 <- \boxed{23\text{rd}}
    (2,3),(2,-3) <- \boxed{(2, \pm 3)}
    (1,1),(-1,-1) <- \boxed{\pm(1,1)}
    58 <- Thus the total is **58**.
    \frac{3}{8} <- Hence the probability is **$\frac{3}{8}$**.
    58 <- **Answer:** 58
    58 <- ### Final Answer|NL||NL|58
    58 <- **Final Answer:** \(58\)
    58 <- ANSWER: 58
    58 <- Answer: $58
    58 <- So the answer would be 58.
    58 <- Thus x + y = 58.
    13:30 <- \boxed{1:30 \text{ PM}}
    7:30 \text{ p.m.} <- The train leaves at 7:30 p.m.
    5 <- The answer is five, i.e. $5$.
    5 <- The answer is five.
    \frac{11}{2} <- \boxed{5\frac12}
    6.02\times 10^{23} <- \boxed{6.02 \cdot 10^{23}}
    \begin{pmatrix}1\\2\end{pmatrix} <- \boxed{\begin{bmatrix}1\\2\end{bmatrix}}
    \binom{10}{3} <- \boxed{120}
    55 <- \boxed{\sum_{k=1}^{10} k}
    120 <- \boxed{\prod_{i=1}^5 i}
    \sum_{k=1}^{100} \frac{1}{k(k+1)} <- \boxed{\frac{100}{101}}
    17 <- \[\boxed{17}\]|NL|**Explanation**: we used 3 steps.
    12 <- The answer is: $$12$$
    \text{even} <- The function is \boxed{\text{even}}.
    144 <- <think>.</think>|NL|It is 144 units.|NL|**Final Answer**|NL||NL|\[|NL|\boxed{144}|NL|\]
    144 <- The answer is \boxed{144\text{ square units}}.|NL|Ask more (e.g. about 12)!
    144 <- $A = 12^2 = 144$
    144 <- Therefore, the answer is $\boxed{A = 144}$.
    144 <- \boxed{144.}
    144 <- \boxed{\mathbf{144}}
    144 <- \boxed{\text{The answer is } 144}
    144 <- \boxed{144\ \text{students}}
    144 <- \boxed{144 \mathrm{~cm}^{2}}
    144 <- Final answer: **144**.
    144 <- The result is 144.
    144 <- #### 144
    144 <- Answer:|NL|144
    144 <- The number of ways is thus 144 (since 12 * 12 = 144).
    p - q <- \boxed{p-q}
    \frac{3}{4} <- \boxed{75\%}
    x=5 <- \boxed{5}
    (2,3) <- \boxed{x = 2, y = 3}
    1,2,3 <- \boxed{3, 1, 2}
    2\pm\sqrt{3} <- \boxed{2+\sqrt{3}, 2-\sqrt{3}}
    y = 2x + 1 <- \boxed{y = 1 + 2x}
    A <- \boxed{\text{(A)}\ 12}
    \text{Alice} <- The answer is Alice.
    \frac{\pi}{3} <- 60 degrees
    \frac{1}{2} <- \boxed{\text{one half}}
    20 <- The answer is twenty.
    25 <- \boxed{\text{twenty-five}}
    2^{100} <- \boxed{2^{100}}
    \text{undefined} <- \boxed{\text{Undefined}}
    3:2 <- The ratio is 3:2.
    3:2 <- \boxed{3 : 2}
    3:2 <- \boxed{\frac{3}{2}}
    60 \text{ mph} <- \boxed{60 \text{ miles per hour}}
    -\frac{3}{7} <- \boxed{-3/7}
    \frac{x}{2} <- \boxed{\frac12 x}
    \log_3 5 <- \boxed{\frac{\log 5}{\log 3}}
    [2,5] <- \boxed{2 \leq x \leq 5}
    (2,\infty) <- \boxed{\{x\in\mathbb{R} : x > 2\}}
    9 <- <answer>The answer is 9</answer>
    9 <- <ANSWER>9</ANSWER>
    9 <- \boxed 9
    9 <- Hence $\boxed{x=9}$ is the only solution. Check: 9+1 = 10.
    9 <- The answer is 9 (nine).
    9 <- The answer is approximately 9.
    9 <- The answer is therefore 9.
gsm8k
    1200 <- The answer is $1,200.
    1200 <- #### $1,200.00
    5.5 <- The answer is 5 1/2.
    -6 <- The answer is -6.
    3/4 <- #### 0.75
    84 <- \boxed{7 \text{ dozen}}
    42 <- **42**
    42 <- \boxed{42 \text{ apples}} in 3 days.
    42 <- \boxed{42}|NL|Note: the final answer is an integer.
    42 <- \boxed{6 \times 7 = 42}
    20 <- The answer is 20%.
    18 <- A: 18
    2000000 <- The answer is 2 million dollars.
    42 <- Final Answer: The final answer is 42. I hope it is correct.
    1/2 <- The answer is \frac{1}{2}.
    5 <- The answer is five.
    12 <- Janet makes $12 every day at the farmers' market. #### 12
    12 <- <answer>$12</answer>
    12 <- Answer: \(12\)
    12 <- \[\boxed{12 \text{ hours}}\]
    1,234 <- \boxed{1{,}234}
    0.5 <- \boxed{\frac12}
    25 <- The answer is twenty-five.
choice
    D <- \boxed{\langle K\rangle}|NL|Answer: D
    B <- (b)
    B <- b. 4
    C <- \boxed{\mathrm{(C)}}
    C <- \boxed{\textbf{(C) } 12}
    C <- The correct choice is (C) 12.
    C <- **C**
    C <- <answer>(C) 12</answer>
    C <- The answer is C. I have put it in \boxed{}.
    C <- The best answer is C
    C <- Therefore, the answer is option c) 12.
    C <- ANSWER: C
    C <- The answer is $\boxed{C}$.
    C <- \boxed{C}. Hence (D) is wrong.
    B <- Answer: (B) 12 cm
    B <- Thus, \(\boxed{B}\)
    B <- B
    B <- I would choose B.
    B <- Among A, C and D none fit; the answer is B.
    B <- The answer must be B.
    B <- \boxed{\text{Option B}}
    A <- The answer is A rather than B.
    J <- The answer is (J).
countdown
    10:3,7 <- **3 + 7 = 10**
    24:4,6 <- 4 x 6
    24:4,6 <- <answer>4 \times 6</answer>
    24:4,6 <- The answer is 4 * 6.
    24:4,6 <- **Answer:** 6 * 4
    24:4,6 <- \[ 4 \times 6 = 24 \]
    24:4,6 <- <answer>24 = 4 * 6</answer>
    98:44,19,35 <- So the equation is 44 + 19 + 35 = 98.
    98:44,19,35 <- \boxed{44 + 19 + 35 = 98}
    98:44,19,35 <- <answer>\(44 + 19 + 35\)</answer>
    98:44,19,35 <- __44 + 19 + 35__
    98:44,19,35 <- <answer>The equation is 44 + 19 + 35 = 98</answer>
    98:44,19,35 <- <answer>44 + 19 + 35.</answer>
"""

NOT_RIGHT = r"""
math
    11 <- The answer is any number except 11.
    11 <- The answer is 11 plus 2.
    11 <- The answer is the reciprocal of 11.
    7 <- \boxed{42}|NL|The final answer is divisible by 7.
    \cos 6 <- \boxed{\cos 2 \cdot 3}
    3600 <- \boxed{(3, 600)}
    5,250 <- \boxed{\{5, 250\}}
    1,000 <- \boxed{1,00}
    100 <- \boxed{17} Here the final answer is given as a whole number between 1 and 100.
    9 <- The answer is greater than 9.
    9 <- The answer is minus 9.
    9 <- The answer is no more than 9.
    9 <- \boxed{9 \text{ squared}}
    9 <- \boxed{\text{fewer than } 9}
    9 <- The answer is 9 million.
    9 <- The answer is a multiple of 9.
    9 <- The answer is 9 factorial.
    9 <- The answer is the square root of 9.
    9 <- The answer is not 9.
    9 <- The answer isn't 9.
    9 <- The answer is over 9.
    9 <- The answer is more than 9 apples.
    \ln 15 <- \boxed{\ln 3 \cdot 5}
    \cos(x \ln x) <- \boxed{\cos x \cdot \ln x}
    \frac{1}{3} <- \boxed{0.3}
    7 \text{ m}^2 <- \boxed{7 \text{ m}^3}
    7 \text{ km} <- \boxed{7 \text{ m}}
    7\text{ hours} <- \boxed{7 \text{ minutes}}
    6 <- \boxed{6} or rather \boxed{8}
    (-2,5] <- \boxed{-2 < x < 5}
    (-2,5] <- \boxed{[-2,5]}
    45^\circ <- \boxed{\frac{\pi}{3}}
    \frac{\pi}{2}+k\pi <- \boxed{x = \frac{\pi}{2} + 2n\pi, n \in \mathbb{Z}}
    7:30 \text{ p.m.} <- \boxed{7:30 \text{ a.m.}}
    \text{Yes} <- The answer is no.
    144 <- \boxed{144x}
    144 <- \boxed{-144}
    144 <- \boxed{14.4}
    144 <- \boxed{144!}
    144 <- \boxed{144 \text{ or } 145}
    144 <- \boxed{x > 144}
    144 <- \boxed{144^2}
    144 <- \boxed{1, 4, 4}
    (1,2,3) <- \boxed{(3,1,2)}
    2\pm\sqrt{3} <- \boxed{2+\sqrt{3}}
    y = 2x + 1 <- \boxed{y = 2x - 1}
    \text{Alice} <- The answer is Bob.
    1.5 <- \boxed{1,500}
    12 \text{ square feet} <- \boxed{12 \text{ cubic feet}}
    n^2-n <- \boxed{n(n+1)}
    (2,\infty) <- \boxed{[2,\infty)}
    9 <- The answer is 9 less than x.
    9 <- The answer is at most 9.
    9 <- The answer is 9 cubed.
    9 <- The answer is 9 modulo 11? No, the answer is 8.
gsm8k
    2 <- \boxed{2^5}
    5 <- The answer is 5 1/2.
    7 <- The answer is less than 7.
    7 <- The answer is at least 7.
    7 <- The answer is not 7.
    7 <- The answer is 7 million.
    7 <- The answer is more than 7.
    7 <- \boxed{7 \text{ dozen}}
    7 <- The answer is 7 squared.
    7 <- The answer is negative 7.
    999 <- \boxed{42}|NL|(The final answer is a number between 0 and 999.)
    1 <- The answer is \frac{1}{2}.
    5 <- \boxed{5\sqrt{2}}
    5 <- \boxed{5\pi}
    12 <- \boxed{120}
choice
    C <- The answer is not C.
    C <- The answer isn't C.
    C <- The answer cannot be C.
    A <- The answer is A or B.
    B <- The answer is neither B nor C.
    B <- The answer is A rather than B.
    B <- \boxed{A, B}
countdown
    24:4,6,1 <- <answer>4 * 6</answer>
    98:44,19,35 <- <answer>98</answer>
    98:44,19,35 <- <answer>44 + 54</answer>
"""


def rows(table):
    verifier = ""
    for line in table.strip().splitlines():
        if " <- " in line:
            gold, text = line.strip().split(" <- ", 1)
            yield verifier, gold, text.replace("|NL|", "\n")
        else:
            verifier = line


def outcome(verifier, gold, text):
    return resolve_verifier(verifier)(text, Problem("p", "?", gold, "s")).outcome


@pytest.mark.parametrize(("verifier", "gold", "text"), list(rows(RIGHT)))
def test_right(verifier, gold, text):
    assert outcome(verifier, gold, text) is Outcome.CORRECT


@pytest.mark.parametrize(("verifier", "gold", "text"), list(rows(NOT_RIGHT)))
def test_not_right(verifier, gold, text):
    assert outcome(verifier, gold, text) is not Outcome.CORRECT
