(* The algebra of balance, machine-checked (Coq 8.16 with MathComp).  `make prove` checks this file and
   prints what each theorem assumes: nothing.  Entries lie in any commutative ring; of derivatives in time
   only the product rule is used.  Layers are counted from 0, as in the library: [W j], of shape
   n_{j+1} x n_j, is the book's W_{j+1}, and [imbalance W j] its D_{j+1}.  Only [W 0], ..., [W N.-1] matter. *)
Set Warnings "-notation-overridden,-ambiguous-paths".
From mathcomp Require Import all_ssreflect all_algebra.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

(** Chains of layers (chapter 2) *)

Section Chain.
Variables (R : comRingType) (n : nat -> nat).
Definition layers := forall j, 'M[R]_(n j.+1, n j).
Implicit Types (W V X : layers) (N i j : nat).

(* The layers from j on and below N, W_{N-1} ... W_j; the identity where none is left, N = j. *)
Fixpoint product W j N : 'M[R]_(n N, n j) :=
  match N with
  | 0 => pid_mx (n j)
  | M.+1 => if j == M.+1 then pid_mx (n j) else W M *m product W j M
  end.

Definition end_to_end W N := product W 0 N.

(* eq-layer-gradients: the gradient at layer j that a matrix G at the end-to-end matrix makes. *)
Definition gradient W N (G : 'M[R]_(n N, n 0)) : layers :=
  fun j => (product W j.+1 N)^T *m G *m (product W 0 j)^T.

(* def-balanced *)
Definition imbalance W j : 'M[R]_(n j.+1) := (W j.+1)^T *m W j.+1 - W j *m (W j)^T.

Lemma imbalance_symmetric W j : (imbalance W j)^T = imbalance W j.
Proof. by rewrite /imbalance [LHS]linearB /= !trmx_mul !trmxK. Qed.

Lemma product_empty W j : product W j j = 1%:M.
Proof. by case: j => [|j]; rewrite /= ?eqxx pid_mx_1. Qed.
Lemma product_last W j N : (j <= N)%N -> product W j N.+1 = W N *m product W j N.
Proof. by move=> jN; rewrite /= ltn_eqF. Qed.
Lemma product_split W i j N : (i <= j)%N -> (j <= N)%N -> product W i N = product W j N *m product W i j.
Proof.
move=> ij; elim: N => [|N IH]; first by rewrite leqn0 => /eqP ?; subst j; rewrite product_empty mul1mx.
rewrite leq_eqVlt => /orP[/eqP <-|jN]; first by rewrite product_empty mul1mx.
by rewrite product_last ?(leq_trans ij) // IH // product_last // mulmxA.
Qed.
Lemma product_first W j N : (j < N)%N -> product W j N = product W j.+1 N *m W j.
Proof. by move=> jN; rewrite (@product_split W j j.+1 N) // product_last // product_empty mulmx1. Qed.

Lemma product_same W X i j : (i <= j)%N -> (forall k, (i <= k < j)%N -> X k = W k) ->
  product X i j = product W i j.
Proof.
elim: j => [|j IH]; first by rewrite leqn0 => /eqP -> _; rewrite !product_empty.
rewrite leq_eqVlt => /orP[/eqP <- _|ij same]; first by rewrite !product_empty.
rewrite !product_last // same ?ltnSn ?andbT // IH // => k /andP[ik kj].
by rewrite same // ik (ltn_trans kj).
Qed.

(* lem-layer-gradients, its algebra: if layer j alone changes, by H, the end-to-end matrix changes by exactly
   A H B, and the inner product of G with that is the inner product of G_j with H. *)
Theorem layer_gradients W X N (G : 'M[R]_(n N, n 0)) j : (j < N)%N -> (forall i, i != j -> X i = W i) ->
  end_to_end X N - end_to_end W N = product W j.+1 N *m (X j - W j) *m product W 0 j /\
  \tr (G^T *m (end_to_end X N - end_to_end W N)) = \tr ((gradient W G j)^T *m (X j - W j)).
Proof.
move=> jN same.
have change : end_to_end X N - end_to_end W N = product W j.+1 N *m (X j - W j) *m product W 0 j.
  rewrite /end_to_end (@product_split X 0 j.+1 N) // (@product_split W 0 j.+1 N) // !product_last //.
  rewrite (@product_same W X j.+1 N) // ?(@product_same W X 0 j) //.
  - by rewrite -mulmxBr -mulmxBl mulmxA.
  - by move=> k /andP[_ kj]; rewrite same // ltn_eqF.
  - by move=> k /andP[jk _]; rewrite same // gtn_eqF.
split=> //; rewrite change /gradient !trmx_mul !trmxK !mulmxA.
by rewrite mxtrace_mulC !mulmxA.
Qed.

(* lem-balance *)
Theorem balance W N (G : 'M[R]_(n N, n 0)) j : (j.+1 < N)%N ->
  (W j.+1)^T *m gradient W G j.+1 = gradient W G j *m (W j)^T.
Proof.
by move=> jN; rewrite /gradient !mulmxA -trmx_mul -product_first // product_last // trmx_mul !mulmxA.
Qed.

(* What the imbalance gains at first order when the layers W move along V. *)
Definition pairing W V j : 'M[R]_(n j.+1) := (W j.+1)^T *m V j.+1 - V j *m (W j)^T.

Lemma pairing_gradient W N (G : 'M[R]_(n N, n 0)) j : (j.+1 < N)%N -> pairing W (gradient W G) j = 0.
Proof. by move=> jN; rewrite /pairing balance // subrr. Qed.
Lemma pairing_move W V X a j : pairing W (fun i => a *: V i - X i) j = a *: pairing W V j - pairing W X j.
Proof. by rewrite /pairing mulmxBr mulmxBl -scalemxAl -scalemxAr scalerBr !opprD !opprK addrACA. Qed.
Lemma trmx_move m k (U H : 'M[R]_(m, k)) a r : (a *: U - r *: H)^T = a *: U^T - r *: H^T.
Proof. by rewrite linearB !linearZ. Qed.
Lemma gram_move m k (U H : 'M[R]_(m, k)) a r :
  (a *: U - r *: H)^T *m (a *: U - r *: H)
  = a ^+ 2 *: (U^T *m U) - (a * r) *: (U^T *m H + H^T *m U) + r ^+ 2 *: (H^T *m H).
Proof.
rewrite trmx_move mulmxBl !mulmxBr -!scalemxAl -!scalemxAr !scalerA -!expr2 (mulrC r a) scalerDr.
by rewrite opprB opprD !addrA addrAC.
Qed.
Lemma gram_move' m k (U H : 'M[R]_(m, k)) a r :
  (a *: U - r *: H) *m (a *: U - r *: H)^T
  = a ^+ 2 *: (U *m U^T) - (a * r) *: (U *m H^T + H *m U^T) + r ^+ 2 *: (H *m H^T).
Proof. by have := gram_move U^T H^T a r; rewrite !trmxK -trmx_move trmxK. Qed.
Lemma regroup (M : zmodType) (x x' y y' z z' : M) :
  (x - y + z) - (x' - y' + z') = (x - x') - (y - y') + (z - z').
Proof. by rewrite !opprD !opprK addrACA (addrACA x). Qed.
Lemma regroup_rates (M : lmodType R) (x x' y z z' : M) (a r s : R) :
  r *: (a ^+ 2 *: x - (a * s) *: y + s ^+ 2 *: z) - s *: (a ^+ 2 *: x' - (a * r) *: y + r ^+ 2 *: z')
  = a ^+ 2 *: (r *: x - s *: x') + (r * s) *: (s *: z - r *: z').
Proof.
rewrite !scalerDr !scalerN !scalerA regroup (mulrCA r a s) (mulrCA s a r) (mulrC s r) subrr subr0.
by rewrite !(mulrC _ (a ^+ 2)) !expr2 !mulrA (mulrC s r).
Qed.
Lemma imbalance_move W V X a r j : X j = a *: W j - r *: V j -> X j.+1 = a *: W j.+1 - r *: V j.+1 ->
  imbalance X j = a ^+ 2 *: imbalance W j - (a * r) *: (pairing W V j + (pairing W V j)^T)
                  + r ^+ 2 *: imbalance V j.
Proof.
move=> Xj Xj1; rewrite /imbalance Xj Xj1 gram_move gram_move' regroup -!scalerBr /pairing.
congr (_ - _ *: _ + _); rewrite (addrC (W j *m _)) opprD addrACA.
by rewrite [(_ - _)^T]linearB /= !trmx_mul !trmxK.
Qed.

(* thm-balance-step: one step of all layers, of any size, with weight decay.  The last imbalance is that of the
   gradients, G_{j+1}^T G_{j+1} - G_j G_j^T. *)
Theorem balance_step W X N (G : 'M[R]_(n N, n 0)) eta lam j :
  (forall i, (i < N)%N -> X i = (1 - eta * lam) *: W i - eta *: gradient W G i) -> (j.+1 < N)%N ->
  imbalance X j = (1 - eta * lam) ^+ 2 *: imbalance W j + eta ^+ 2 *: imbalance (gradient W G) j.
Proof.
move=> step jN; rewrite (imbalance_move (step j (ltnW jN)) (step j.+1 jN)) pairing_gradient //.
by rewrite trmx0 addr0 scaler0 subr0.
Qed.

(* ex-layer-rates, one step of it with decay, a = 1 - eta lam: layer i has its own rate r_i. *)
Theorem unequal_rates W X N (G : 'M[R]_(n N, n 0)) (r : nat -> R) a j :
  (forall i, (i < N)%N -> X i = a *: W i - r i *: gradient W G i) -> (j.+1 < N)%N ->
  r j *: ((X j.+1)^T *m X j.+1) - r j.+1 *: (X j *m (X j)^T)
  = a ^+ 2 *: (r j *: ((W j.+1)^T *m W j.+1) - r j.+1 *: (W j *m (W j)^T))
    + (r j * r j.+1) *: (r j.+1 *: ((gradient W G j.+1)^T *m gradient W G j.+1)
                         - r j *: (gradient W G j *m (gradient W G j)^T)).
Proof.
move=> step jN; rewrite !step ?(ltnW jN) // gram_move gram_move'.
have B := balance W G jN.
rewrite -B -[W j *m (gradient W G j)^T]trmxK trmx_mul trmxK -B trmx_mul trmxK.
by rewrite [in X in _ - X](addrC (_ *m W j.+1)) regroup_rates.
Qed.
End Chain.

(** Heavy ball from rest (chapter 2) *)

Section HeavyBall.
Variables (R : comRingType) (n : nat -> nat) (N : nat) (W V : nat -> layers R n) (G : nat -> 'M[R]_(n N, n 0)).
Variables (beta q h : R).  (* q is 1 / (1 - beta) *)
Hypothesis inverse : (1 - beta) * q = 1.
Hypothesis at_rest : forall i, (i < N)%N -> V 0%N i = 0.
Hypothesis velocity : forall t i, (i < N)%N -> V t.+1 i = beta *: V t i + gradient (W t) (G t) i.
Hypothesis position : forall t i, (i < N)%N -> W t.+1 i = W t i - h *: V t.+1 i.

(* c_m of eq-heavy-ball *)
Definition weight m := 1 + 2%:R * beta * ((1 - beta ^+ m) * q).

Lemma weight0 : weight 0 = 1.
Proof. by rewrite /weight expr0 subrr mul0r mulr0 addr0. Qed.
Lemma weightS m : weight m.+1 = weight m + 2%:R * beta ^+ m.+1.
Proof.
rewrite /weight; have -> : (1 - beta ^+ m.+1) * q = (1 - beta ^+ m) * q + beta ^+ m.
  by rewrite -[X in _ = _ + X]mulr1 -inverse mulrA -mulrDl mulrBr mulr1 -exprSr addrA subrK.
by rewrite mulrDr addrA exprS (mulrA 2%:R).
Qed.
Lemma pairing_step t j : (j.+1 < N)%N -> pairing (W t) (V t.+1) j = beta *: pairing (W t) (V t) j.
Proof.
move=> jN; rewrite /pairing !velocity ?(ltnW jN) // mulmxDr mulmxDl -scalemxAr -scalemxAl balance //.
by rewrite opprD addrACA subrr addr0 scalerBr.
Qed.
Lemma pairing_velocities t j : (j.+1 < N)%N ->
  pairing (W t) (V t) j = - h *: \sum_(1 <= s < t.+1) beta ^+ (t - s) *: imbalance (V s) j.
Proof.
move=> jN; elim: t => [|t IH].
  by rewrite big_geq // scaler0 /pairing !at_rest ?(ltnW jN) // mulmx0 mul0mx subrr.
have -> : pairing (W t.+1) (V t.+1) j = pairing (W t) (V t.+1) j - h *: imbalance (V t.+1) j.
  rewrite /pairing /imbalance !position ?(ltnW jN) // -[W t j.+1]scale1r -[W t j]scale1r !trmx_move.
  rewrite mulmxBl mulmxBr -!scalemxAl -!scalemxAr !scale1r scalerBr.
  by rewrite !opprD !opprK addrACA.
rewrite pairing_step // IH [in RHS]big_nat_recr //= subnn expr0 scale1r -scaleNr [RHS]scalerDr; congr (_ + _).
rewrite scalerA mulrC -scalerA scaler_sumr; congr (_ *: _); apply: eq_big_nat => s /andP[_ st].
by rewrite scalerA -exprS subSn.
Qed.

(* thm-heavy-ball; [imbalance (V s) j] is its H_j(s). *)
Theorem heavy_ball T j : (j.+1 < N)%N ->
  imbalance (W T) j = imbalance (W 0%N) j + h ^+ 2 *: \sum_(1 <= s < T.+1) weight (T - s) *: imbalance (V s) j.
Proof.
move=> jN; elim: T => [|t IH]; first by rewrite big_geq // scaler0 addr0.
set S := \sum_(1 <= s < t.+1) beta ^+ (t.+1 - s) *: imbalance (V s) j.
have first_order : pairing (W t) (V t.+1) j = - h *: S.
  rewrite pairing_step // pairing_velocities // scalerA mulrC -scalerA scaler_sumr; congr (_ *: _).
  by apply: eq_big_nat => s /andP[_ st]; rewrite scalerA -exprS subSn.
have symmetric : S^T = S.
  by rewrite linear_sum; apply: eq_bigr => s _; rewrite linearZ /= imbalance_symmetric.
have -> : \sum_(1 <= s < t.+2) weight (t.+1 - s) *: imbalance (V s) j
  = \sum_(1 <= s < t.+1) weight (t - s) *: imbalance (V s) j + 2%:R *: S + imbalance (V t.+1) j.
  rewrite big_nat_recr //= subnn weight0 scale1r scaler_sumr -big_split; congr (_ + _).
  by apply: eq_big_nat => s /andP[_ st]; rewrite subSn // weightS scalerDl scalerA.
have move_i i : (i < N)%N -> W t.+1 i = 1 *: W t i - h *: V t.+1 i by move=> iN; rewrite scale1r position.
rewrite (imbalance_move (move_i j (ltnW jN)) (move_i j.+1 jN)) expr1n scale1r mul1r IH first_order.
rewrite [(_ *: S)^T]linearZ /= symmetric -mulr2n -scaler_nat scaleNr !scalerN opprK 2![in RHS]scalerDr !addrA.
by congr (_ + _ + _); rewrite !scalerA mulrAC -expr2.
Qed.
End HeavyBall.

(** Gradient flow and momentum flow (chapter 2) *)

(* One moment of time: R holds the functions differentiable then, such as the entries of the layers and of their
   velocities; [value] is what they are then, in S, and [rate] their derivative. *)
Section Moment.
Variables (R S : comRingType) (value : {rmorphism R -> S}) (rate : {additive R -> S}).
Hypothesis product_rule : forall x y, rate (x * y) = rate x * value y + value x * rate y.
Variables (n : nat -> nat) (N : nat) (G : 'M[S]_(n N, n 0)).
Implicit Types W V : layers R n.
Definition now W : layers S n := fun j => map_mx value (W j).

Lemma rate_mul m p k (A : 'M[R]_(m, p)) (B : 'M_(p, k)) :
  map_mx rate (A *m B) = map_mx rate A *m map_mx value B + map_mx value A *m map_mx rate B.
Proof.
apply/matrixP => i j; rewrite !mxE raddf_sum -big_split.
by apply: eq_bigr => l _; rewrite !mxE product_rule.
Qed.
Lemma rate_scale m k (e : R) (A : 'M_(m, k)) :
  map_mx rate (e *: A) = rate e *: map_mx value A + value e *: map_mx rate A.
Proof. by apply/matrixP => i j; rewrite !mxE product_rule. Qed.
Lemma rate_imbalance W (V : layers S n) j : (forall i, (i < N)%N -> map_mx rate (W i) = V i) -> (j.+1 < N)%N ->
  map_mx rate (imbalance W j) = pairing (now W) V j + (pairing (now W) V j)^T.
Proof.
move=> moves jN; rewrite /imbalance /pairing map_mxB !rate_mul -!map_trmx !moves ?(ltnW jN) //.
by rewrite [(_ - _)^T]linearB /= !trmx_mul !trmxK (addrC (_ *m map_mx value (W j.+1))) opprD addrACA.
Qed.
Lemma now_imbalance W j : map_mx value (imbalance W j) = imbalance (now W) j.
Proof. by rewrite /imbalance map_mxB !map_mxM !map_trmx. Qed.
Lemma now_pairing W V j : map_mx value (pairing W V j) = pairing (now W) (now V) j.
Proof. by rewrite /pairing map_mxB !map_mxM !map_trmx. Qed.

(* thm-balance-flow, but for the solution of the last equation: D' = -2 lam D, so e^(2 lam t) D is constant. *)
Theorem balance_flow W lam e j :
  (forall i, (i < N)%N -> map_mx rate (W i) = - lam *: now W i - gradient (now W) G i) -> (j.+1 < N)%N ->
  rate e = 2%:R * lam * value e ->
  map_mx rate (imbalance W j) = - (2%:R * lam) *: map_mx value (imbalance W j) /\
  map_mx rate (e *: imbalance W j) = 0.
Proof.
move=> flow jN decay.
have D' : map_mx rate (imbalance W j) = - (2%:R * lam) *: map_mx value (imbalance W j).
  rewrite (rate_imbalance flow jN) pairing_move pairing_gradient // subr0 linearZ /=.
  by rewrite now_imbalance imbalance_symmetric -mulr2n -scaler_nat scalerA mulrN.
by split=> //; rewrite rate_scale D' decay scalerA -scalerDl mulrN mulrC subrr scale0r.
Qed.

(* ex-layer-rates: r_j W_{j+1}^T W_{j+1} - r_{j+1} W_j W_j^T is kept when layer i has the rate r_i. *)
Theorem unequal_rates_flow W (r : nat -> S) j :
  (forall i, (i < N)%N -> map_mx rate (W i) = - r i *: gradient (now W) G i) -> (j.+1 < N)%N ->
  r j *: map_mx rate ((W j.+1)^T *m W j.+1) = r j.+1 *: map_mx rate (W j *m (W j)^T).
Proof.
move=> flow jN; rewrite !rate_mul -!map_trmx !flow ?(ltnW jN) // ![(_ *: _)^T]linearZ /=.
rewrite -!scalemxAl -!scalemxAr -!scalerDr !scalerA !mulrN (mulrC (r j)).
have B := balance (now W) G jN; rewrite B.
by rewrite -[now W j *m (gradient _ _ _)^T]trmxK trmx_mul trmxK -B trmx_mul trmxK addrC.
Qed.

(* thm-momentum: e^(alpha t) (K - K^T) is constant; K_j = W_j' W_j^T - W_{j+1}^T W_{j+1}', and V = W'. *)
Theorem momentum W V alpha e j (K := fun j => V j *m (W j)^T - (W j.+1)^T *m V j.+1) (D' := - (K j + (K j)^T)) :
  (forall i, (i < N)%N -> map_mx rate (W i) = now V i) ->
  (forall i, (i < N)%N -> map_mx rate (V i) = - alpha *: now V i - gradient (now W) G i) -> (j.+1 < N)%N ->
  rate e = alpha * value e ->
  [/\ map_mx rate (e *: (K j - (K j)^T)) = 0,
      map_mx rate (imbalance W j) = map_mx value D' &
      map_mx rate D' + alpha *: map_mx value D' = 2%:R *: imbalance (now V) j].
Proof.
move=> moves falls jN friction.
have K_pairing : K j = - pairing W V j by rewrite /K /pairing opprB.
have rate_pairing : map_mx rate (pairing W V j) = imbalance (now V) j - alpha *: map_mx value (pairing W V j).
  have <- : pairing (now W) (fun i => - alpha *: now V i - gradient (now W) G i) j
    = - (alpha *: map_mx value (pairing W V j)).
    by rewrite pairing_move pairing_gradient // subr0 scaleNr now_pairing.
  rewrite /pairing map_mxB !rate_mul -!map_trmx !moves ?falls ?(ltnW jN) //.
  by rewrite (addrC (_ *m (map_mx value (W j))^T)) opprD addrACA.
have D'_pairing : D' = pairing W V j + (pairing W V j)^T.
  by rewrite /D' K_pairing [(- _)^T]linearN /= -opprD opprK.
set p := map_mx value (pairing W V j) in rate_pairing.
have rate_pairing_T : (map_mx rate (pairing W V j))^T = imbalance (now V) j - alpha *: p^T.
  by rewrite rate_pairing [LHS]linearB /= imbalance_symmetric [(_ *: _)^T]linearZ.
split.
- rewrite K_pairing [(- _)^T]linearN /= opprK addrC rate_scale friction ![map_mx _ (_^T - _)]map_mxB.
  rewrite -!map_trmx rate_pairing_T rate_pairing -/p opprB [_ + (_ - imbalance _ _)]addrC subrKA.
  by rewrite -scalerBr scalerA (mulrC _ alpha) -scalerDr subrKA subrr scaler0.
- by rewrite (rate_imbalance moves jN) D'_pairing [RHS]map_mxD -map_trmx now_pairing.
- rewrite D'_pairing ![map_mx _ (_ + _^T)]map_mxD -!map_trmx rate_pairing_T rate_pairing -/p.
  by rewrite [alpha *: (_ + _)]scalerDr addrACA -opprD subrK -mulr2n -scaler_nat.
Qed.
End Moment.
